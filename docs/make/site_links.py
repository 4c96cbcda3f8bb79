"""A hook of MkDocs: links from the pages into the repository work on the site as well.

Pages link to files outside docs/ as a reader of the repository needs it. What a browser shows by itself is taken along,
at its path from the repository's root; all else is named by that path, without a link.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Pages of the navigation that stand at the repository's root.
FROM_ROOT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
SHOWN = (".md", ".png", ".csv", ".html")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of FROM_ROOT, and what any page links to, again and again until nothing is new."""
    for name in FROM_ROOT:
        files.append(_taken(ROOT / name, config, InclusionLevel.INCLUDED))
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for found in _LINK.finditer(page.content_string):
            target = _target(page, found[3])
            if target.suffix in SHOWN and target.is_file() and not files.get_file_from_path(_uri(target)):
                taken = _taken(target, config, InclusionLevel.NOT_IN_NAV)
                files.append(taken)
                waiting += [taken] if taken.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Returns the text with links as they are on the site."""

    def replaced(found: re.Match[str]) -> str:
        target = _target(page.file, found[3])
        if not target.exists():  # MkDocs tells of it.
            return found[0]
        if files.get_file_from_path(_uri(target)):
            place = posixpath.relpath(_uri(target), posixpath.dirname(page.file.src_uri) or ".")
            return f"{found[1]}[{found[2]}]({place}{found[4] or ''})"
        path = target.relative_to(ROOT).as_posix()
        return found[2] if path in found[2] else f"{found[2]} (`{path}`)"

    return _LINK.sub(replaced, markdown)


def _target(page: File, link: str) -> Path:
    return (Path(page.abs_src_path or DOCS / page.src_uri).parent / link).resolve()


def _uri(path: Path) -> str:
    """Returns the path on the site: of a page of docs/ from there, of any other file from the repository's root."""
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix() if path.is_relative_to(ROOT) else ""


def _taken(path: Path, config: Any, inclusion: InclusionLevel) -> File:
    return File.generated(config, _uri(path), abs_src_path=str(path), inclusion=inclusion)
