"""YAML of plain values: mappings with text keys, lists, texts, numbers; bounded however its anchors repeat."""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from workflow.common.readers.guard import read_text, reading

MOST_BYTES = 1 << 20  # of a file: a preset has under 20,000
MOST_NODES = 100_000  # after all anchors have been put in; the largest preset has under a thousand
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
_LARGEST = 2**64


class _Loader(yaml.SafeLoader):
    """Without dates: 2024-01-01 is a text, as a folder's name may be."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def parse_yaml(text: str) -> Any:
    """Returns the value of a YAML text.

    Raises ValueError for malformed text, anchors that hold themselves or blow up, a key that stands twice or is no
    text, NaN, numbers of more than 64 bits, dates, sets and other types, and what is nested too deep.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node)
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except yaml.YAMLError as error:
        raise ValueError(error) from None
    _check_numbers(value)
    return value


def read_yaml(path: str | Path) -> Any:
    """Returns what a YAML file holds. Raises UserError naming the file if it is missing or malformed."""
    problem = "is not valid YAML"
    text = read_text(path, problem, "write it again as UTF-8 text", MOST_BYTES)
    with reading(path, problem, "mend it"):
        return parse_yaml(text)


def repeated_key(text: str) -> str | None:
    """Returns a key that stands twice in one mapping of a YAML text; None if there is none, or it is no YAML."""
    try:
        waiting = [yaml.compose(text, yaml.BaseLoader)]
    except (yaml.YAMLError, RecursionError):
        return None
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key in keys:
                if keys.count(key) > 1:
                    return key
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return None


def _check(root: yaml.Node) -> None:
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in open_nodes:
            raise ValueError(f"an anchor in line {node.start_mark.line + 1} holds itself")
        if key not in sizes:
            open_nodes.add(key)
            sizes[key] = 1 + sum(size(child) for child in _children(node))
            open_nodes.discard(key)
        if sizes[key] > MOST_NODES:
            raise ValueError(f"its anchors repeat themselves to more than {MOST_NODES:,} values")
        return sizes[key]

    size(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    line = node.start_mark.line + 1
    if node.tag not in _TAGS:
        raise ValueError(f"line {line} holds {node.tag.rpartition(':')[2] or node.tag}, which is no plain value")
    if isinstance(node, yaml.SequenceNode):
        return node.value
    if not isinstance(node, yaml.MappingNode):
        return []
    seen: set[str] = set()
    for key, _ in node.value:
        merge = key.tag.endswith(":merge")
        if not merge and (not key.tag.endswith(":str") or not isinstance(key, yaml.ScalarNode)):
            raise ValueError(f"a key in line {key.start_mark.line + 1} is no text; put it in quotes")
        if isinstance(key.value, Hashable) and key.value in seen and not merge:
            raise ValueError(f"key {key.value!r} in line {key.start_mark.line + 1} stands twice")
        seen.add(key.value)
    return [part for pair in node.value for part in pair]


def _check_numbers(value: Any) -> None:
    waiting, met = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            # One list under several anchors is one object.
            if id(one) not in met:
                met.add(id(one))
                waiting += one.values() if isinstance(one, dict) else one
        elif isinstance(one, float) and math.isnan(one):
            raise ValueError("it holds .nan, which is no number")
        elif isinstance(one, int) and not -_LARGEST < one < _LARGEST:
            raise ValueError(f"the number {str(one)[:40] if one.bit_length() < 10_000 else 'in it'} is too large")
