"""The report page: everything in one file, text escaped, provenance from the runs."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evaluation.report.page import main, markdown_to_html
from workflow.common.contracts import RunFolder
from workflow.common.files import write_json, write_text

PAGE = "### Table 1: quality\n\n| Method | MNIST<br>IS |\n| --- | ---: |\n| a<b \\| c | 1.5 |\n\nA note & more.\n"
PIXELS = b"\x89PNG not really"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "quick"
    write_text(root / "tables/table1.md", PAGE)
    (root / "figures").mkdir()
    (root / "figures/figure3.png").write_bytes(PIXELS)
    for seed, modified in ((0, False), (1, True)):
        provenance = {"commit": "abc123", "modified": modified, "python": "3.11.9", "packages": {"torch": "2.13.0"},
                      "processor": "Chip", "cores": 2, "time": f"2026-01-0{seed + 1}T00:00:00+00:00"}  # fmt: skip
        run = {"run": "dpac", "method": "dpac", "hyper": {"steps": 800}, "steps_done": 7, "steps_planned": 8}
        folder = RunFolder(root, "mnist", "dpac", 10, seed).path
        write_json(folder / "run.json", run | {"provenance": provenance, "train_seconds": 12.6})
    return root


def test_the_ranking_has_a_part_of_its_own_where_there_is_one(root, tmp_path, page):
    assert "Which method?" not in page
    write_text(root / "tables/rank.md", "### mnist, ε 10\n\n| Method |\n| --- |\n| dpac |\n\nA sum.\n")
    assert main(["--root", str(root), "--out", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text()
    assert text.count("mnist, ε 10") == 1
    assert (
        text.index("<h2>Figures")
        < text.index("<h2>Which method?")
        < text.index("mnist, ε 10")
        < text.index("<h2>Limits")
    )


@pytest.fixture
def page(root, tmp_path) -> str:
    assert main(["--root", str(root), "--out", str(tmp_path / "report.html")]) == 0
    return (tmp_path / "report.html").read_text()


def test_tables_become_html_with_escaped_text_and_aligned_numbers():
    html = markdown_to_html(PAGE)
    assert "<h3>Table 1: quality</h3>" in html
    assert '<th>Method</th><th class="right">MNIST<br>IS</th>' in html
    assert '<td>a&lt;b | c</td><td class="right">1.5</td>' in html
    assert '<p class="note">A note &amp; more.</p>' in html


def test_the_page_loads_nothing_from_elsewhere(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources == [f"data:image/png;base64,{base64.b64encode(PIXELS).decode()}"]
    assert "<script" not in page and "http" not in page and "@import" not in page


def test_the_page_is_well_formed(page):
    open_tags = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Checker().feed(page)
    assert open_tags == []


def test_provenance_tells_each_origin_and_run(page):
    assert "1 of 2 runs: commit abc123; Chip, 2 cores; Python 3.11.9; torch 2.13.0" in page
    assert "1 of 2 runs: commit abc123 with uncommitted changes" in page
    assert "between 2026-01-01T00:00:00+00:00 and 2026-01-02T00:00:00+00:00" in page
    assert page.count("<td>7 of 8</td><td>13</td>") == 2
    assert "steps=800" in page


def test_the_limits_are_stated(page):
    assert "not proved" in page and "selected by its score on the real test data" in page


def test_how_settings_were_chosen_is_read_from_the_record(root, page, tmp_path):
    assert "How settings were chosen" not in page
    runs = {"dpac": {"chosen_on": ["mnist (test split)"]}}
    runs["dpgan"] = {"chosen_on": ["mnist_val"], "chosen_note": "a < b"}
    write_json(root / "provenance.json", {"settings": {"runs": runs}})
    assert main(["--root", str(root), "--out", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "<code>dpac</code> were chosen by scores on the test split of <code>mnist</code>, which flatters" in text
    assert "<code>dpgan</code> were chosen on held-out images (<code>mnist_val</code>)." in text
    assert "<li><code>dpgan</code>: a &lt; b</li>" in text


def test_only_the_given_runs_count(root, tmp_path):
    folder = RunFolder(root, "mnist", "dpac", 10, 0).path
    assert main(["--root", str(root), "--out", str(tmp_path / "r.html"), "--runs", str(folder)]) == 0
    assert "1 of 1 runs" in (tmp_path / "r.html").read_text()


def test_tables_and_figures_that_are_left_out_are_not_shown_though_they_lie_there(root, tmp_path):
    write_text(root / "tables/table4.md", "### Table 4: ablation\n")
    (root / "figures/figure4.png").write_bytes(PIXELS)
    out = tmp_path / "report.html"
    assert main(["--root", str(root), "--out", str(out)]) == 0
    assert "Table 4" in out.read_text() and out.read_text().count("<figure>") == 2
    assert main(["--root", str(root), "--out", str(out), "--leave-out", "table4", "table5", "figure4"]) == 0
    assert "Table 4" not in out.read_text() and out.read_text().count("<figure>") == 1
    assert "Table 1: quality" in out.read_text()


def test_a_folder_without_tables_is_bad_input(tmp_path, capsys):
    assert main(["--root", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 2
    assert "no tables under" in capsys.readouterr().err
