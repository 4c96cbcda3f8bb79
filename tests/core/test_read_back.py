"""Whatever is wrong with a file that a run stored for itself is one line that names it, and nothing is changed.

Damage by hand is meant: a file that was cut is caught by digests before it is looked at.
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from test_one_run import STEPS, contents, killed, planned
from toys import CPU, toy_records

from methods.core.privacy.ledger import Ledger
from methods.core.privacy.ledger_lines import Chain
from methods.core.released.workplace import Workplace
from methods.core.runs import begun, checkpoint, finished, outputs, parts, train
from methods.core.sharded import pretraining
from workflow.common.errors import UserError
from workflow.common.files import write_json


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> dict[str, Path]:
    """A run killed after 12 steps, one killed before its end was published, and a finished one."""
    root = tmp_path_factory.mktemp("kept")
    killed(root / "half", planned(), 3)
    shutil.copytree(root / "half", root / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(outputs, "publish", interrupted)
        train.train(planned(), toy_records(), root / "whole", CPU)
    shutil.copytree(root / "whole", root / "ended")
    train.train(planned(), toy_records(), root / "whole", CPU)
    return {name: root / name for name in ("half", "ended", "whole")}


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def trained(folder: Path) -> None:
    train.train(planned(), toy_records(), folder, CPU)


def told(folder: Path, read: Callable[[Path], Any] = trained) -> str:
    """Returns the line that reading, or training, a folder ends in, which changes nothing there."""
    before = contents(folder)
    with pytest.raises(UserError) as error:
        read(folder)
    assert contents(folder) == before
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    return str(error.value)


def put(content: Any, keys: tuple[str, ...], value: Any) -> Any:
    """Returns JSON-like `content` whose field at `keys` is `value`, or gone where that is None."""
    if not keys:
        return value
    first, *rest = keys
    if value is None and not rest:
        return {name: part for name, part in content.items() if name != first}
    return content | {first: put(content[first], tuple(rest), value)}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("ledger", "size"), "x"), (("ledger", "size"), -1), (("ledger", "size"), True), (("ledger", "size"), 1.5),
        (("ledger", "uses"), {}), (("ledger", "uses"), []), (("ledger", "uses"), {"images": 1}),
        (("ledger", "digest"), 7), (("ledger", "digest"), None), (("ledger",), 3), (("ledger",), None),
        (("plan",), 3), (("plan",), {}), (("plan",), None), (("plan", "releases"), 5), (("plan", "public"), []),
        (("records",), None), (("records",), 5), (("records",), "x"), (("noise",), "none"), (("noise",), ["secret"]),
        (("nonce",), None), (("nonce",), ""), (("earlier",), "0"), (("earlier",), None), ((), []), ((), "begun"),
    ],
)  # fmt: skip
def test_a_begin_that_was_damaged_is_one_line_with_its_path(kept, tmp_path, keys, value):
    shutil.copytree(kept["half"], tmp_path / "run")
    path = tmp_path / "run" / "private" / "begun.json"
    write_json(path, put(json.loads(path.read_text()), keys, value))
    assert str(path) in told(tmp_path / "run", begun.read)


def test_uses_beyond_the_plan_or_of_a_stranger_are_no_begin(kept, tmp_path):
    shutil.copytree(kept["half"], tmp_path / "run")
    path = tmp_path / "run" / "private" / "begun.json"
    content = json.loads(path.read_text())
    (name,) = content["ledger"]["uses"]
    for uses in ({name: STEPS + 1}, {name: -1}, {name: 0, "stranger": 0}):
        write_json(path, put(content, ("ledger", "uses"), uses))
        assert "does not say what was begun" in told(tmp_path / "run", begun.read)
    assert "does not say what was begun" in told(tmp_path / "run")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ((), torch.zeros(3)), ((), [1, 2]), ((), {}), (("step",), None), (("step",), "3"), (("step",), -1),
        (("step",), STEPS + 1), (("seconds",), float("nan")), (("log",), {}), (("log",), [3]), (("about",), None),
        (("about",), []), (("about", "ledger"), None), (("about", "ledger"), 5), (("about", "ledger", "uses"), {}),
        (("about", "run"), None), (("public",), None), (("public",), {}), (("public",), {"a": 1}),
        (("private",), None), (("private",), {}), (("private",), 3),
    ],
)  # fmt: skip
def test_a_checkpoint_of_something_else_is_one_line_with_its_path(kept, tmp_path, keys, value):
    shutil.copytree(kept["half"], tmp_path / "run")
    path = checkpoint.checkpoint_path(tmp_path / "run")
    torch.save(put(torch.load(path, weights_only=True), keys, value), path)
    assert str(path) in told(tmp_path / "run")


@pytest.mark.parametrize("damage", ["cut", "emptied", "a text", "code", "another zip"])
def test_a_checkpoint_that_is_none_is_one_short_line(kept, tmp_path, damage):
    shutil.copytree(kept["half"], tmp_path / "run")
    path = checkpoint.checkpoint_path(tmp_path / "run")
    if damage == "code":
        torch.save({"step": contextlib.suppress}, path)
    elif damage == "another zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "b")
    else:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "emptied": b"", "a text": b"lost"}[damage])
    line = told(tmp_path / "run", functools.partial(checkpoint.load, device=CPU))
    assert f"{path} is not a readable checkpoint" in line and "second time" in line
    assert "weights_only" not in line and len(line) - len(str(path)) < 250


def resumed(folder: Path) -> None:
    ledger, plan = folder / "private" / "ledger.jsonl", planned()
    with Ledger.open(ledger, plan.releases, plan.budget, resume=True, run=plan.digest):
        pass


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"answered": "NAME", "digest": "0" * 16}, "lacks 'use'"),
        ({"answered": "NAME", "use": 3}, "lacks 'digest'"),
        ({"answered": "NAME", "use": 3, "digest": 5}, "'digest' is 5"),
        ({"answered": ["NAME"], "use": 3, "digest": "0" * 16}, "'answered' is"),
        ({"charge": "NAME", "use": "3"}, "'use' is '3'"),
        ({"charge": "NAME", "use": 10**30}, "'use' is"),
        ({"charge": "NAME", "use": True}, "'use' is True"),
        ({"charge": "NAME"}, "lacks 'use'"),
        ({"charge": {"a": 1}, "use": 1}, "'charge' is"),
        ({"charge": "stranger", "use": 1}, "'charge' is 'stranger'"),
        ({"reserve": "NAME", "use": 3, "boot": 1}, "'boot' is 1"),
        ({"internal": 7}, "'internal' is 7"),
        ({"refund": "NAME", "use": 3}, "none of charge"),
    ],
)
def test_a_ledger_line_that_is_chained_and_says_nothing_a_ledger_says_is_one_line(kept, tmp_path, line, says):
    shutil.copytree(kept["half"], tmp_path / "run")
    path, (release,) = tmp_path / "run" / "private" / "ledger.jsonl", planned().releases
    text = json.dumps(line).replace("NAME", release.name)
    content = path.read_bytes()
    path.write_bytes(content + Chain(content).line(json.loads(text)))
    said, number = told(tmp_path / "run", resumed), content.count(b"\n") + 1
    assert f"{path} line {number} is no line of a ledger" in said and says in said


@pytest.mark.parametrize("content", [b"", b"\n", b"lost\n", b"[]\n", b'{"plan": 3, "budget": {}}\n', b'{"plan": []}\n'])
def test_a_published_ledger_that_is_none_is_one_line_in_words(kept, tmp_path, content):
    shutil.copytree(kept["whole"], tmp_path / "run")
    path = tmp_path / "run" / "ledger.jsonl"
    path.write_bytes(content)
    line = told(tmp_path / "run", lambda folder: finished.spent(folder / "ledger.jsonl"))
    assert f"cannot tell what {path} spent" in line
    assert "unpack" not in line and "subscriptable" not in line


@pytest.mark.parametrize("name", ["generator.safetensors", "log.csv", "ledger.jsonl"])
@pytest.mark.parametrize("kind", ["ended", "whole"])
def test_an_end_that_lacks_a_file_publishes_none(kept, tmp_path, kind, name):
    shutil.copytree(kept[kind], tmp_path / "run")
    (tmp_path / "run" / "private" / "end" / name).unlink()
    if kind == "whole":
        (tmp_path / "run" / name).unlink()
        (tmp_path / "run" / "run.json").unlink()
    assert f"lacks {name}" in told(tmp_path / "run")


@pytest.mark.parametrize("value", [[], {}, {"steps_done": "3"}, {"steps_done": 1, "steps_planned": 1}, "x"])
def test_a_record_that_is_none_is_not_published(kept, tmp_path, value):
    shutil.copytree(kept["ended"], tmp_path / "run")
    write_json(tmp_path / "run" / "private" / "end" / "run.json", value)
    assert "is no record of a run" in told(tmp_path / "run")


@pytest.mark.parametrize("value", [[], {}, "x", {"run": 5}])
def test_an_end_that_does_not_say_whose_it_is_is_not_published(kept, tmp_path, value):
    shutil.copytree(kept["ended"], tmp_path / "run")
    write_json(tmp_path / "run" / "private" / "end" / "about.json", value)
    assert "private/end" in told(tmp_path / "run")


@pytest.mark.parametrize("content", [{}, [], 3, {"plan": 3}])
def test_samples_beside_a_plan_that_is_none_are_not_joined(tmp_path, content):
    part = {"file": "samples-000.npz", "first": 0, "count": 1, "sha256": "a"}
    write_json(tmp_path / "samples.json", {"plan": "a", "generator": "b", "num": 1, "parts": [part]})
    (tmp_path / "samples-000.npz").write_bytes(b"")
    write_json(tmp_path / "plan.json", content)
    with pytest.raises(UserError, match=r"plan\.json"):
        parts.join(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("id", 5), ("id", None), ("id", "../x"), ("train", 3), ("plan", 3), ("plan", {}), ("plan", [])]
)
def test_a_release_whose_begin_was_damaged_is_one_line_with_its_path(tmp_path, name, value):
    place = Workplace(tmp_path / "out")
    with place.held():
        release = place.begin(planned(), "a" * 64)
        path = tmp_path / "out.private" / "begun.json"
        assert place.begun() == release
        write_json(path, put(json.loads(path.read_text()), (name,), value))
        with pytest.raises(UserError, match=r"begun\.json"):
            place.begun()


@pytest.mark.parametrize("damage", ["gone", "cut", "emptied", "of fewer shards"])
def test_critics_that_are_none_are_one_line_with_their_path(tmp_path, damage):
    (path, _), = pretraining.files(tmp_path, 3)
    whole = save({"weight": torch.zeros(2 if damage == "of fewer shards" else 3, 4)})
    if damage != "gone":
        path.write_bytes({"cut": whole[:-9], "emptied": b""}.get(damage, whole))
    with pytest.raises(UserError) as error:
        pretraining.pretrained(tmp_path, 2)
    assert str(path) in str(error.value) and "methods warm-start" in str(error.value)
