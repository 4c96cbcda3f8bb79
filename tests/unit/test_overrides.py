"""A method that overrides another takes what that one takes: a class may stand wherever its base is asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("workflow", "methods", "evaluation", "dpbench")
# Called by the name of the class alone.
BUILDERS = {"__init__", "__new__", "__post_init__"}


class Argument(NamedTuple):
    """An argument's name, what it is declared to be ("Any" where nothing is said), and whether it may be left out."""

    name: str
    kind: str
    optional: bool


def arguments(method: ast.FunctionDef) -> list[Argument]:
    """Returns the arguments that have a place, without the class or the object."""
    given, bound = method.args, not any(ast.unparse(one) == "staticmethod" for one in method.decorator_list)
    places = [*given.posonlyargs, *given.args]
    return [
        argument(one, place >= len(places) - len(given.defaults)) for place, one in enumerate(places)
    ][bound:]  # fmt: skip


def by_name(method: ast.FunctionDef) -> dict[str, Argument]:
    """Returns the arguments that have a name alone."""
    given = zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True)
    return {one.arg: argument(one, default is not None) for one, default in given}


def argument(one: ast.arg, optional: bool) -> Argument:
    return Argument(one.arg, ast.unparse(one.annotation) if one.annotation else "Any", optional)


def suits(own: Argument, other: Argument) -> bool:
    """Returns whether one argument takes what another one does; Any is as good as every kind."""
    kinds = {own.kind, other.kind}
    return own.name == other.name and own.optional >= other.optional and (len(kinds) == 1 or "Any" in kinds)


def takes(method: ast.FunctionDef, base: ast.FunctionDef) -> bool:
    """Returns whether any call that `base` declares is one that `method` declares."""
    ours, theirs = arguments(method), arguments(base)
    named, asked = by_name(method), by_name(base)
    more = [*ours[len(theirs) :], *(one for name, one in named.items() if name not in asked)]
    return (
        len(ours) >= len(theirs) and named.keys() >= asked.keys() and all(one.optional for one in more)
        and all(suits(own, other) for own, other in zip(ours, theirs, strict=False))
        and all(suits(named[name], other) for name, other in asked.items())
    )  # fmt: skip


def methods(cls: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {one.name: one for one in cls.body if isinstance(one, ast.FunctionDef) and one.name not in BUILDERS}


def strangers(sources: Mapping[str, str]) -> Iterator[str]:
    """Yields the overriding methods of files, given by their text, that do not take what a base's method takes."""
    classes = {
        file: {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
        for file, text in sources.items()
    }

    def bases(file: str, cls: ast.ClassDef) -> Iterator[ast.ClassDef]:
        for name in (ast.unparse(base).split("[")[0].split(".")[-1] for base in cls.bases):
            # A name of the file itself is never another file's.
            for place in [file] if name in classes[file] else classes:
                if base := classes[place].get(name):
                    yield base
                    yield from bases(place, base)

    for file, named in classes.items():
        for cls in named.values():
            for base in bases(file, cls):
                theirs = methods(base)
                yield from (
                    f"{file}: {cls.name}.{name} as {base.name}'s" for name, method in methods(cls).items()
                    if name in theirs and not takes(method, theirs[name])
                )  # fmt: skip


def test_every_override_takes_what_its_base_declares() -> None:
    files = (path for top in FOLDERS for path in (ROOT / top).rglob("*.py"))
    assert list(strangers({str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files})) == []


@pytest.mark.parametrize(
    ("override", "is_seen"),
    [
        ("def put(self, which: int, places: int = 0)", False), ("def put(self, which: Any, places: int = 0)", False),
        ("def put(self, which: int, places: int = 0, more: int = 0)", False),
        ("def put(self, which: str, places: int = 0)", True), ("def put(self, which: int)", True),
        ("def put(self, shard: int, places: int = 0)", True), ("def put(self, which: int, places: int)", True),
        ("def put(self, which: int, places: int = 0, *, more: int = 0)", False),
        ("def put(self, which: int, places: int = 0, *, more: int)", True),
        ("def put(self, which: int, *, places: int = 0)", True),
    ],
)  # fmt: skip
def test_the_check_sees_an_override_that_takes_something_else(override: str, is_seen: bool) -> None:
    base = "class Base:\n    def put(self, which: int, places: int = 0): ..."
    child = f"from base import Base\nclass Child(Base):\n    {override}: ..."
    assert list(strangers({"base.py": base, "child.py": child})) == ["child.py: Child.put as Base's"] * is_seen
