"""What `reproducible: true` pins reaches every library that picks code by the processor, and torch's own calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import bit_for_bit
from evaluation.scores import Score, write_scores
from workflow.common import pins, torch_threads
from workflow.common.errors import UserError
from workflow.common.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]
# What Python has in argv[0] while it imports the package of `python -m package.module`.
BEGIN = "import sys; sys.argv[0] = '-m'; import evaluation\n"
LIBRARIES = """
import json, os, numpy, scipy.linalg, torch
from numpy._core import _multiarray_umath as umath
from threadpoolctl import threadpool_info
from workflow.common.torch_threads import use_threads
use_threads(1)
torch.ones(64, 64) @ torch.ones(64, 64)
torch.nn.functional.conv2d(torch.ones(9, 8, 8, 8), torch.ones(8, 8, 3, 3))
print(json.dumps({
    "torch": torch.backends.cpu.get_cpu_capability(),
    "numpy": [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]],
    "blas": sorted({one["architecture"] for one in threadpool_info() if one["user_api"] == "blas"}),
    "deterministic": torch.are_deterministic_algorithms_enabled(), "threads": torch.get_num_threads(),
    "gpu": torch.cuda.is_available(), "nnpack": torch.backends.nnpack.set_flags(False)[0],
    "products": os.environ["ONEDNN_DEFAULT_FPMATH_MODE"],
}))
"""
VALUES = {
    "sqrt": (np.sqrt, [0.0, 0.1, 2.0, 3e38]), "log": (np.log, [0.1, 2.0, 3e38]), "log10": (np.log10, [0.1, 2.0]),
    "tan": (np.tan, [-1.5, 0.3]), "asin": (np.arcsin, [-0.9, 0.3]), "acos": (np.arccos, [-0.9, 0.3]),
    "atan": (np.arctan, [-9.0, 0.3]),
}  # fmt: skip


def matrix() -> torch.Tensor:
    return torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])


def whole() -> torch.Tensor:
    return torch.ones(3, dtype=torch.int64)


# What is given and what is written into, of all seven functions.
INTO: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
    "its own kind": lambda: (matrix(), torch.zeros(2, 3)),
    "nothing yet": lambda: (matrix(), torch.zeros(0)),
    "nothing yet, given another order in memory": lambda: (matrix().t(), torch.zeros(0)),
    "another shape": lambda: (matrix(), torch.zeros(4)),
    "every other place": lambda: (matrix(), torch.zeros(2, 6)[:, ::2]),
    "more precise": lambda: (matrix(), torch.zeros(2, 3, dtype=torch.float64)),
    "less precise": lambda: (matrix().double(), torch.zeros(2, 3, dtype=torch.bfloat16)),
    "whole numbers": lambda: (matrix(), torch.full((2, 3), 7)),
    "whole numbers of another shape": lambda: (matrix(), torch.full((4,), 7)),
    "truth values": lambda: (matrix(), torch.ones(2, 3, dtype=torch.bool)),
    "whole numbers, given whole numbers": lambda: (whole(), torch.full((3,), 7)),
    "numbers, given whole numbers": lambda: (whole(), torch.zeros(3, dtype=torch.float64)),
    "real numbers, given complex ones": lambda: (matrix() + 0j, torch.full((2, 3), 7.0)),
    "complex numbers, given real ones": lambda: (matrix(), torch.zeros(2, 3, dtype=torch.complex64)),
    "one place for all": lambda: (matrix(), torch.zeros(1, 1).expand(2, 3)),
    "one place for all, itself": lambda: (given := torch.full((1, 1), 0.5).expand(2, 3), given),
    "itself": lambda: (given := matrix(), given),
    "whole numbers, itself": lambda: (given := whole(), given),
    "a part of itself": lambda: ((memory := matrix().flatten())[:3], memory[1:4]),
    "given a kind without such functions": lambda: (matrix().to(torch.float8_e5m2), torch.zeros(2, 3)),
    "given what learns": lambda: (matrix().requires_grad_(), torch.zeros(2, 3)),
}


def pinned_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, pins.VARIABLE: "1", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def libraries() -> tuple[dict[str, Any], str]:
    """What a pinned process's libraries say of themselves, and what MKL and oneDNN print as they compute."""
    found = pinned_process(LIBRARIES, MKL_VERBOSE="1", ONEDNN_VERBOSE="1", ONEDNN_DEFAULT_FPMATH_MODE="BF16")
    *told, last = found.stdout.splitlines()
    return json.loads(last), "\n".join(told)


def test_no_library_takes_more_than_avx2(libraries) -> None:
    found, told = libraries
    assert found["torch"] == "AVX2" and set(found["numpy"]) <= {"X86_V3"}
    assert found["blas"] in ([], ["Haswell"]) and "cpu,isa:Intel AVX2\n" in told


def test_mkl_takes_the_code_that_is_the_same_for_every_maker(libraries) -> None:
    products = [line for line in libraries[1].splitlines() if line.startswith("MKL_VERBOSE SGEMM")]
    assert products and all("CNR:COMPATIBLE" in line for line in products)


def test_one_thread_the_processor_and_deterministic_algorithms(libraries) -> None:
    expected = {"deterministic": True, "threads": 1, "gpu": False, "nnpack": False, "products": "STRICT"}
    assert libraries[0] | expected == libraries[0]


def test_a_process_that_is_not_asked_keeps_its_environment() -> None:
    code = "import os; print(sorted(name for name in os.environ if name.startswith(('MKL_', 'ONEDNN_', 'ATEN_'))))"
    clean = {name: value for name, value in os.environ.items() if name not in {*pins.PINS, pins.VARIABLE}}
    for asked in ({}, {pins.VARIABLE: "0"}):
        found = subprocess.run(
            [sys.executable, "-c", BEGIN + code], cwd=ROOT, capture_output=True, text=True, check=True,
            env=clean | asked,
        )  # fmt: skip
        assert found.stdout == "[]\n"


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch):
    """This process pinned for one test; its libraries are loaded already, so only torch's own calls are."""
    monkeypatch.setenv(pins.VARIABLE, "1")
    threads = torch.get_num_threads()
    torch_threads.use_threads(1)
    yield
    torch_threads._overrides.clear()
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.nnpack.set_flags(True)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_what_mkl_estimates_is_computed_by_numpy_in_all_three_forms(pinned, name: str, kind: torch.dtype) -> None:
    function, numbers = VALUES[name]
    x = torch.tensor(numbers, dtype=kind)
    expected = torch.from_numpy(function(x.numpy()))
    into = torch.empty(0, dtype=kind)
    getattr(torch, name)(x, out=into)
    forms = [getattr(torch, name)(x), getattr(x.clone(), f"{name}_")(), into, getattr(torch, name)(x[:, None].t())[0]]
    assert all(torch.equal(form, expected) for form in forms)
    assert len(VALUES) == len(torch_threads.ESTIMATED)


def test_its_gradients_batches_and_kinds_of_numbers_are_torchs(pinned) -> None:
    x = torch.tensor([0.25, 4.0], requires_grad=True)
    x.sqrt().sum().backward()
    assert x.grad.tolist() == [1.0, 0.25]
    assert torch.vmap(torch.sqrt)(torch.tensor([[4.0], [9.0]])).tolist() == [[2.0], [3.0]]
    assert torch.sqrt(torch.tensor(4)).item() == 2.0 and torch.sqrt(torch.tensor(4)).dtype == torch.float32
    assert torch.sqrt(torch.tensor([4.0]).bfloat16()).dtype == torch.bfloat16
    conjugate = torch.tensor([3 - 4j]).conj()
    assert torch.sqrt(conjugate).tolist() == [2 + 1j] and torch.sqrt(conjugate.imag).tolist() == [2.0]
    assert torch.sqrt(torch.tensor([-1.0])).isnan().all() and torch.log(torch.tensor(0.0)).item() == -np.inf


def written(call: Callable[[], torch.Tensor], into: torch.Tensor) -> tuple[list[object], torch.Tensor]:
    """Returns how a call that writes into a tensor ends and what it warns of, and what the tensor holds then."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            end: object = call() is into
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
    told = [str(one.message).partition("(Triggered")[0] for one in warned]
    return [end, into.dtype, into.shape, into.stride(), *told], into.detach().clone()


def written_by_all(into: str) -> list[tuple[list[object], torch.Tensor]]:
    """Returns how all functions end that write into another tensor, and into the given one."""
    found = []
    for name in torch_threads.ESTIMATED:
        (x, out), (itself, _) = INTO[into](), INTO[into]()
        found.append(written(partial(getattr(torch, name), x, out=out), out))
        found.append(written(getattr(itself, f"{name}_"), itself))
    return found


@pytest.mark.parametrize("into", INTO)
def test_what_may_be_written_into_and_how_is_torchs(into: str, request: pytest.FixtureRequest) -> None:
    plain = written_by_all(into)
    request.getfixturevalue("pinned")
    for (end, values), (expected_end, expected) in zip(written_by_all(into), plain, strict=True):
        assert end == expected_end
        torch.testing.assert_close(values.to(torch.complex128), expected.to(torch.complex128), equal_nan=True)


def test_afterwards_torch_computes_by_itself_again() -> None:
    assert not torch_threads._overrides and not torch.are_deterministic_algorithms_enabled()


def test_several_threads_are_refused_where_one_is_pinned(monkeypatch) -> None:
    torch_threads.use_threads(2)
    assert torch.get_num_threads() == 2
    torch_threads.use_threads(1)
    monkeypatch.setenv(pins.VARIABLE, "1")
    with pytest.raises(UserError, match="one thread, got 2; leave the threads out"):
        torch_threads.use_threads(2)


def test_the_record_of_a_run_names_the_processor_and_what_was_pinned(monkeypatch) -> None:
    assert "pinned" not in provenance()
    monkeypatch.setenv(pins.VARIABLE, "1")
    assert provenance()["pinned"] == dict(pins.PINS)
    if "avx2" in Path("/proc/cpuinfo").read_text():
        assert "family" in provenance()["processor"] and "AVX" in provenance()["processor"]


def test_operations_that_differ_are_named_and_a_process_that_is_not_pinned_is_refused(monkeypatch) -> None:
    assert bit_for_bit.compared({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
    monkeypatch.delenv(pins.VARIABLE, raising=False)
    with pytest.raises(UserError, match=f"set {pins.VARIABLE}=1"):
        bit_for_bit.digests()


@pytest.mark.parametrize(("value", "code"), [(0.8, 0), (0.800001, 1)])
def test_scores_that_are_equal_note_the_processor_and_others_do_not(tmp_path, monkeypatch, capsys, value, code) -> None:
    monkeypatch.setattr(bit_for_bit, "SCORES", tmp_path / "reference")
    for side, accuracy, seconds in (("reference", 0.8, 3.0), ("new", value, 9.0)):
        rows = [Score("smoke", "digits", "dpac", 10.0, "sound", 0, metric, number, "measured")
                for metric, number in (("g2r_cnn", accuracy), ("train_seconds", seconds))]  # fmt: skip
        write_scores(tmp_path / side / "scores.csv", rows)
    (tmp_path / "reference/provenance.json").write_text("{}")
    assert bit_for_bit.main(["--scores", str(tmp_path / "new"), "--note", "--named", "one"]) == code
    noted = json.loads((tmp_path / "reference/provenance.json").read_text())
    assert noted == ({} if code else {"equal_on": [{"processor": "one", "equal": "1 scores of 1 rows"}]})
    assert ("1 of 1 scores" in capsys.readouterr().out) == bool(code)


def test_a_processor_is_noted_once() -> None:
    record = bit_for_bit.noted({}, "one", "3 scores")
    record = bit_for_bit.noted(bit_for_bit.noted(record, "two", "3 scores"), "one", "9 scores")
    assert record["equal_on"] == [
        {"processor": "two", "equal": "3 scores"}, {"processor": "one", "equal": "9 scores"},
    ]  # fmt: skip


def test_the_installed_command_is_pinned_too_before_a_verb_loads_a_library() -> None:
    code = (
        "import os, sys; sys.argv = ['dpbench', 'rank', '--help']; from dpbench import __main__ as dpbench\n"
        "dpbench.main = lambda: print(os.environ['ATEN_CPU_CAPABILITY'], 'torch' in sys.modules)\ndpbench.entry()"
    )
    environment = {**os.environ, pins.VARIABLE: "1"} | {"ATEN_CPU_CAPABILITY": "default"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.stdout == "avx2 False\n"


@pytest.mark.parametrize(("value", "code"), [("yes", 2), ("true", 2), ("0", 0), ("", 0), ("1", 0)])
def test_a_wish_that_is_neither_yes_nor_no_is_one_line(value: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "methods", "list"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, pins.VARIABLE: value},
    )  # fmt: skip
    told = f"error: {pins.VARIABLE} must be 1 or 0 in the environment, or not there, got {value!r}\n"
    assert (done.returncode, done.stderr) == (code, told if code else "")
