"""report.html in headless Chromium: no console error, no overflow on a phone, every column reachable, plots drawn.

With AXE_CORE, the path of axe-core's axe.min.js (npm), also no serious finding of that accessibility checker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from evaluation.report.page import main

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (Debian: apt-get install chromium)"),
]
# Runs before the page's own scripts.
LISTEN = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(`${event.message} ${event.target.outerHTML || ""}`), true);
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
for (const kind of ["error", "warn"]) console[kind] = (...words) => problems.push(words.join(" "));
</script>"""
ASK = """<script>
addEventListener("load", async () => {
  all("details").forEach((card) => { card.open = true; });
  all(".plot").forEach(draw);
  await new Promise((wake) => setTimeout(wake, 500));
  const wide = all(".wide").filter((box) => box.querySelector("thead th"));
  const told = {
    problems,
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    plots: all(".plot").length,
    undrawn: all(".plot").filter((plot) => !plot.querySelector("svg path")).map((plot) => plot.id),
    hidden: wide.filter((box) => {
      box.scrollLeft = 1e6;
      const head = [...box.querySelectorAll("thead th")].pop().getBoundingClientRect();
      return head.right > box.getBoundingClientRect().right + 2;
    }).length,
    covered: wide.filter((box) => box.querySelector(".sortable") && box.scrollWidth > box.clientWidth
      && box.querySelector("th").getBoundingClientRect().width > box.clientWidth / 2).length,
    broken: all('a[href^="#"]').map((link) => link.hash.slice(1)).filter((id) => !document.getElementById(id)),
    unseen: wide.filter((box) => {
      const head = box.closest("#all-tables") && box.querySelector("th.measured");
      box.scrollLeft = 0;
      return head && head.getBoundingClientRect().right > box.getBoundingClientRect().right;
    }).length,
    marked: wide.filter((box) => { box.scrollLeft = 0; mark(box);
      return box.hasAttribute("data-more") !== box.scrollWidth > box.clientWidth + 4; }).length,
    left_out: await left_out(),
    printed: printed(),
    sorted: await sorted(),
    kept: kept(),
    axe: window.axe ? (await axe.run(document, { resultTypes: ["violations"] })).violations
      .filter((one) => ["serious", "critical"].includes(one.impact)).map((one) => [one.id, one.nodes[0].html]) : [],
  };
  document.title = JSON.stringify(told);
});
async function sorted() {
  const table = document.querySelector("#table2").closest("section").querySelector("table");
  const heads = [...table.querySelectorAll("thead th")];
  const place = heads.findIndex((head) => head.textContent.includes("measured"));
  heads[place].querySelector("button").click();
  await new Promise((wake) => setTimeout(wake, 100));
  const values = [...table.tBodies[0].rows].map((row) => row.cells[place].dataset.sort).filter(Boolean).map(Number);
  return heads[place].getAttribute("aria-sort") === "descending" && values.every((v, i) => !i || values[i - 1] >= v);
}
async function left_out() {
  const box = tools.querySelector("[value=count]"), begun = box.checked;
  if (!begun) box.click();
  await new Promise((wake) => setTimeout(wake, 100));
  const hidden = all("#all-tables thead th").filter((head) => !head.offsetWidth).map((head) => head.textContent);
  return [begun, ...hidden];
}
function printed() {
  const buttons = () => all(".sortable thead th > button").length, heads = all(".sortable thead th").length;
  const screen = buttons();
  dispatchEvent(new Event("beforeprint"));
  const paper = buttons();
  dispatchEvent(new Event("afterprint"));
  return [screen === heads, paper, buttons() === heads];
}
function kept() {
  tools.elements.filter.value = "dp-merf";
  tools.elements.filter.dispatchEvent(new Event("input", { bubbles: true }));
  return all("#all-tables .sortable tbody tr:not([data-off]) th").every((th) => th.textContent.includes("DP-MERF"));
}
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["--root", str(ROOT / "results/reference/quick"), "--out", str(out)]) == 0
    axe = os.environ.get("AXE_CORE")
    checker = f"<script>{Path(axe).read_text(encoding='utf-8')}</script>" if axe else ""
    text = out.read_text(encoding="utf-8").replace("<head>", f"<head>{LISTEN}{checker}", 1)
    out.write_text(text.replace("</body>", f"{ASK}</body>"), encoding="utf-8")
    return out


def chromium(*options: str) -> str:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_fails_nothing_overflows_and_all_is_reachable(report: Path, width: int) -> None:
    # The page sits in a frame of the width asked for: a window of Chromium's has a least width.
    frame = report.with_name(f"frame{width}.html")
    frame.write_text(f'<iframe src="{report.name}" width="{width}" height="844" onload="watch()"></iframe><script>'
                     "function watch() { setInterval(() => { document.title = frames[0].document.title }, 100); }"
                     "</script>")  # fmt: skip
    shown = chromium("--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom", frame.as_uri())
    title = re.search(r"<title>(.*?)</title>", shown, re.DOTALL)
    told = json.loads(unescape(title[1]))
    assert told.pop("plots") >= 6 and told.pop("width") in (width, width - 15)
    # A phone begins without two columns, which a click brings back, so that a score is seen at once.
    assert told == {
        "problems": [], "overflow": 0, "undrawn": [], "hidden": 0, "covered": 0, "broken": [], "sorted": True,
        "kept": True, "axe": [], "unseen": 0, "marked": 0, "left_out": [width > 640], "printed": [True, 0, True],
    }  # fmt: skip


def test_it_prints(report: Path, tmp_path: Path) -> None:
    chromium("--virtual-time-budget=20000", f"--print-to-pdf={tmp_path / 'page.pdf'}", report.as_uri())
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
