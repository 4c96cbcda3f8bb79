"""One command makes a whole run, stops in time, and continues when it is called again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from toys import TINY_GAN, Killed, killed_at

from methods.__main__ import main
from methods.commands import run as whole_run
from methods.core import registry
from methods.core.runs import outputs, parts
from methods.core.runs.folder import held, is_begun, is_complete
from workflow.common import process
from workflow.common.contracts import load_images
from workflow.common.files import sha256, write_json, write_npz

ROOT = Path(__file__).resolve().parents[2]
SMALL = TINY_GAN | {"steps": 12, "warm_start_steps": 1}


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")


def make_data(folder):
    draws = np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8), np.arange(60) % 10
    write_npz(folder / "train.npz", images=images, labels=labels)
    write_json(
        folder / "card.json",
        {"dataset": "tiny", "image_shape": [1, 28, 28], "num_classes": 10, "splits": {"train": {"count": 60}}},
    )
    return folder


def call(data, out, *more: str, **settings) -> int:
    chosen = [f"--set={key}={value}" for key, value in (SMALL | settings).items()]
    common = ["run", "gs_wgan", "--data", str(data), "--device", "cpu", "--num", "40", "--accounting", "published"]
    return main([*common, "--out", str(out), *chosen, *more])


def test_a_run_leaves_its_release_and_keeps_the_rest_private(tmp_path, data):
    assert call(data, tmp_path / "run") == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    released = {"plan.json", "ledger.jsonl", "log.csv", "generator.safetensors", "run.json"}
    assert names == released | {"samples.json", "samples-000.npz", "private"}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["steps_done"], record["device"]) == (12, "cpu")
    samples = load_images(tmp_path / "run" / "samples-000.npz")
    assert len(samples) == 40 and np.bincount(samples.labels).tolist() == [4] * 10


def test_samples_are_split_below_the_size_and_joined_again(tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr(whole_run, "_PART_BYTES", 16 * 28 * 28)
    call(data, tmp_path / "run")
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"{tmp_path / 'run'}: trained with epsilon ") and " by the sound count; 40 images" in said
    assert len(list((tmp_path / "run").glob("samples-*.npz"))) == 3
    assert main(["join", str(tmp_path / "run"), "--out", str(tmp_path / "all.npz")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'all.npz'}: 40 images\n"
    monkeypatch.undo()
    call(data, tmp_path / "other")
    whole, joined = load_images(tmp_path / "other" / "samples-000.npz"), load_images(tmp_path / "all.npz")
    assert np.array_equal(whole.images, joined.images) and np.array_equal(whole.labels, joined.labels)


def test_join_of_a_part_that_was_cut_names_the_command_that_makes_it_again(tmp_path, data, capsys):
    call(data, tmp_path / "run")
    part = tmp_path / "run" / "samples-000.npz"
    part.write_bytes(part.read_bytes()[:-40])
    capsys.readouterr()
    assert main(["join", str(tmp_path / "run"), "--out", str(tmp_path / "all.npz")]) == 2
    error = capsys.readouterr().err
    assert "samples-000.npz is not an npz" in error and "by the same python -m methods run" in error
    assert error.count("python -m methods run") == 1 and not (tmp_path / "all.npz").exists()


def test_two_runs_of_one_seed_are_byte_equal_and_another_seed_is_not(tmp_path, data):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        call(data, tmp_path / name, "--seed", seed)
    first, second, other = ((tmp_path / name / "generator.safetensors").read_bytes() for name in "abc")
    assert first == second != other


def test_a_run_stopped_in_time_goes_on_to_the_same_end(tmp_path, data, monkeypatch, capsys):
    call(data, tmp_path / "straight")
    timers = []

    class Timer:
        """Goes off where the test says so."""

        def __init__(self, seconds, function, arguments):
            self.go_off = lambda: function(*arguments)
            timers.append(self)

        def start(self):
            if len(timers) == 1:
                self.go_off()

        def cancel(self):
            pass

        def join(self):
            pass

    cls = registry.load("gs_wgan")
    step = cls.step

    def with_alarm(self, t, data, ledger):
        if len(timers) == 2 and t == 5:
            timers[1].go_off()
        return step(self, t, data, ledger)

    monkeypatch.setattr(whole_run.threading, "Timer", Timer)
    monkeypatch.setattr(cls, "step", with_alarm)
    codes = []
    for _ in range(3):
        try:
            codes.append(call(data, tmp_path / "slots", "--minutes", "9"))
        except SystemExit as end:
            codes.append(end.code)
    assert codes == [75, 75, 0]
    assert "continuing after step 6 of 12" in capsys.readouterr().err
    ends = [(tmp_path / name / "generator.safetensors").read_bytes() for name in ("straight", "slots")]
    assert ends[0] == ends[1]


def test_a_run_whose_time_is_always_up_at_once_gets_on_with_each_call(tmp_path, data, monkeypatch, capsys):
    settings = {"steps": 3, "warm_start_steps": 2}
    call(data, tmp_path / "straight", **settings)

    class Timer:
        def __init__(self, seconds, function, arguments):
            self.start = lambda: function(*arguments)

        def cancel(self):
            pass

        def join(self):
            pass

    monkeypatch.setattr(whole_run.threading, "Timer", Timer)
    capsys.readouterr()
    # Two steps of warm start, three of training, what follows the last one, and the samples.
    kept = ["of the warm start"] * 2 + [f"a checkpoint after step {step} of 3" for step in (1, 2)] + ["everything"]
    for what in [*kept, "the same command continues from"]:
        with pytest.raises(SystemExit, match="75"):
            call(data, tmp_path / "slots", "--minutes", "0.001", **settings)
        error = capsys.readouterr().err
        assert "not finished after 0.001 min: " in error and what in error and "the same command continues" in error
    assert call(data, tmp_path / "slots", "--minutes", "0.001", **settings) == 0
    for name in ("generator.safetensors", "samples-000.npz"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "slots" / name).read_bytes()


@pytest.mark.parametrize(("so_far", "left"), [(0.0, 540.0), (30.5, 509.5), (1000.0, 0.0)])
def test_what_the_command_took_before_is_a_part_of_its_time(tmp_path, monkeypatch, so_far, left):
    timers = []

    class Timer:
        def __init__(self, seconds, function, arguments):
            timers.append(seconds)
            self.start = self.cancel = self.join = lambda: None

    monkeypatch.setattr(whole_run.threading, "Timer", Timer)
    monkeypatch.setattr(whole_run.process, "seconds_so_far", lambda: so_far)
    with whole_run._within(9, tmp_path):
        pass
    assert timers == [left]


class TimerThat:
    """A timer that goes off when it is started, when it is cancelled, or never."""

    def __init__(self, when):
        self.when = when

    def __call__(self, seconds, function, arguments):
        self.go_off = lambda: function(*arguments)
        return self

    def start(self):
        if self.when == "at once":
            self.go_off()

    def cancel(self):
        if self.when == "at the end":
            self.go_off()

    def join(self):
        pass


@pytest.fixture
def terminated():
    """Restores what SIGTERM does."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


SHORT = {"steps": 2, "warm_start_steps": 0}


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_the_limit_holds_in_a_process_that_ignores_its_signal_and_leaves_it_as_it_was(
    tmp_path, data, monkeypatch, terminated, handler
):
    signal.signal(signal.SIGTERM, handler)
    monkeypatch.setattr(whole_run.threading, "Timer", TimerThat("at once"))
    with pytest.raises(SystemExit, match="75"):
        call(data, tmp_path / "run", "--minutes", "9", **SHORT)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_time_that_is_up_when_all_is_done_takes_nothing_back(tmp_path, data, monkeypatch, terminated, capsys):
    came = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    monkeypatch.setattr(whole_run.threading, "Timer", TimerThat("at the end"))
    assert call(data, tmp_path / "run", "--minutes", "9", **SHORT) == 0
    assert not came and "40 images" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["training", "samples"])
def test_a_signal_from_elsewhere_is_not_said_to_be_the_limit(tmp_path, data, monkeypatch, capsys, place):
    call(data, tmp_path / "straight", **SHORT)
    monkeypatch.setattr(whole_run.threading, "Timer", TimerThat("never"))
    owner, name = {"training": (registry.load("gs_wgan"), "step"), "samples": (whole_run, "draw")}[place]
    whole = getattr(owner, name)
    with monkeypatch.context() as patch, pytest.raises(process.Stopped) as end:
        patch.setattr(owner, name, lambda *given: signal.raise_signal(signal.SIGTERM) or whole(*given))
        capsys.readouterr()
        call(data, tmp_path / "run", "--minutes", "9", **SHORT)
    error = capsys.readouterr().err
    assert end.value.code == 128 + signal.SIGTERM and "interrupted: " in error and "9 min" not in error
    assert call(data, tmp_path / "run", "--minutes", "9", **SHORT) == 0
    for file in ("generator.safetensors", "samples-000.npz"):
        assert (tmp_path / "straight" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()


def test_of_two_calls_that_begin_a_folder_at_once_the_second_one_finds_the_first_one_s_plan(
    tmp_path, data, monkeypatch, capsys
):
    path = tmp_path / "run" / "plan.json"
    call(data, tmp_path / "other", **SHORT)
    other = (tmp_path / "other" / "plan.json").read_bytes()

    @contextmanager
    def late(folder):
        path.parent.mkdir()
        path.write_bytes(other)
        yield

    monkeypatch.setattr(whole_run, "held", late)
    assert call(data, tmp_path / "run", steps=3, warm_start_steps=0) == 2
    assert "run was begun with hyper.steps 2, now 3" in capsys.readouterr().err and path.read_bytes() == other


def test_a_finished_run_is_sampled_again_and_never_trained_again(tmp_path, data, monkeypatch):
    call(data, tmp_path / "run")
    before = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    killed_at(monkeypatch, "gs_wgan", 0)
    (tmp_path / "run" / "samples-000.npz").unlink()
    assert call(data, tmp_path / "run") == 0
    assert (tmp_path / "run" / "samples-000.npz").exists()
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == before


def test_a_run_killed_before_its_working_ledger_was_gone_ends_with_the_next_call(tmp_path, data, monkeypatch):
    def killed(folder):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(outputs, "publish", killed)
        call(data, tmp_path / "run")
    assert is_begun(tmp_path / "run")
    assert call(data, tmp_path / "run") == 0
    assert is_complete(tmp_path / "run") and (tmp_path / "run" / "samples-000.npz").exists()
    assert (tmp_path / "run" / "ledger.jsonl").read_text().count('"charge"') == 12


def test_a_finished_run_whose_record_is_gone_is_not_trained_again(tmp_path, data, capsys):
    call(data, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    (tmp_path / "run" / "run.json").unlink()
    assert call(data, tmp_path / "run") == 0
    assert "put back" in capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_folder_that_is_no_data_set_is_refused_with_the_command_that_makes_one(tmp_path, capsys):
    assert call(tmp_path, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path} holds no card.json; ") and error.count("\n") == 1
    assert "python -m workflow.datasets NAME --out DIR" in error and not (tmp_path / "run").exists()


def test_a_folder_begun_with_other_settings_is_refused(tmp_path, data, capsys):
    call(data, tmp_path / "run")
    assert call(data, tmp_path / "run", steps=13) == 2
    assert "run was begun with hyper.steps 12, now 13: continue it as it was begun" in capsys.readouterr().err


WITHOUT = """
import sys
for name in ("yaml", "opacus", "torchvision", "torch_fidelity", "sklearn", "snakemake", "pandas", "matplotlib"):
    sys.modules[name] = None
from methods.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_machine_that_only_trains_needs_none_of_the_suites_packages(tmp_path, data):
    chosen = [f"--set={key}={value}" for key, value in (SMALL | {"steps": 1, "warm_start_steps": 0}).items()]
    command = ["run", "gs_wgan", "--data", str(data), "--num", "10", "--device", "cpu", "--accounting", "published"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *command, "--out", str(tmp_path / "run"), *chosen],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "samples-000.npz").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--minutes", "0"), "--minutes"), (("--minutes", "nan"), "--minutes"), (("--minutes", "inf"), "--minutes"),
        (("--num", "0"), "--num"), (("--threads", "none"), "--threads"), (("--device", "tpu"), "tpu"),
        (("--device", "meta"), "meta"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, data, more, named, capsys):
    assert call(data, tmp_path / "run", *more) == 2
    message = capsys.readouterr().err.strip()
    assert named in message and len(message.splitlines()) == 1


@pytest.fixture(scope="module")
def _parted(tmp_path_factory):
    """A run whose 40 samples are in parts of 16, 16 and 8, and its data."""
    folder = tmp_path_factory.mktemp("parted")
    made = make_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_run, "_PART_BYTES", 16 * 28 * 28)
        assert call(made, folder / "run", steps=1) == 0
    return folder


@pytest.fixture
def parted(_parted, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_run, "_PART_BYTES", 16 * 28 * 28)
    shutil.copytree(_parted / "run", tmp_path / "run")
    return tmp_path / "run", lambda *more: call(_parted / "data", tmp_path / "run", *more, steps=1)


def joined(folder, capsys) -> int | str:
    """Returns the number of images that are joined, or the one line that says why none are."""
    capsys.readouterr()
    out = folder.parent / "all.npz"
    out.unlink(missing_ok=True)
    if main(["join", str(folder), "--out", str(out)]) == 0:
        return len(load_images(out))
    assert not out.exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_another_number_of_samples_replaces_the_set_and_is_joined_as_itself(parted, capsys):
    folder, again = parted
    for number, count in ((20, 2), (33, 3), (5, 1)):
        assert again("--num", str(number)) == 0
        assert f"another set of samples: {number} images" in capsys.readouterr().err
        assert len(list(folder.glob("samples-*.npz"))) == count and joined(folder, capsys) == number


def test_two_calls_of_different_numbers_of_samples_do_not_mix_them(parted, capsys):
    folder, again = parted
    before = {path.name: path.read_bytes() for path in folder.glob("samples*")}
    with held(folder):
        assert again("--num", "20") == 2
        assert "in use by another process" in capsys.readouterr().err
        assert again() == 0
    assert {path.name: path.read_bytes() for path in folder.glob("samples*")} == before


def test_a_kill_between_parts_is_seen_and_the_same_call_makes_the_rest(parted, capsys, monkeypatch):
    folder, again = parted
    before = {path.name: path.read_bytes() for path in folder.glob("samples-*.npz")}
    kept = (folder / "samples-000.npz").stat().st_mtime_ns
    (folder / "samples-001.npz").unlink()
    (folder / "samples-002.npz").unlink()
    assert "lacks 2 of 3 parts, such as samples-001.npz" in joined(folder, capsys)
    assert again() == 0 and joined(folder, capsys) == 40
    assert {path.name: path.read_bytes() for path in folder.glob("samples-*.npz")} == before
    assert (folder / "samples-000.npz").stat().st_mtime_ns == kept

    def killed(path, **arrays):
        raise Killed

    # Fewer parts than before; the first is the same in both sets, and the kill comes at the second.
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(parts, "write_npz", killed)
        again("--num", "31")
    assert "samples-001.npz is damaged or of another set" in joined(folder, capsys)
    assert again("--num", "31") == 0 and joined(folder, capsys) == 31


def changed(folder, **content):
    manifest = json.loads((folder / "samples.json").read_text())
    write_json(folder / "samples.json", manifest | content)


def harm_a_pixel(folder):
    stored = load_images(folder / "samples-001.npz")
    stored.images[3, 0, 5, 5] ^= 1
    write_npz(folder / "samples-001.npz", images=stored.images, labels=stored.labels)


def harm_by_cutting(folder):
    path = folder / "samples-002.npz"
    path.write_bytes(path.read_bytes()[:-200])


def harm_by_swapping(folder):
    first, second = (folder / f"samples-00{place}.npz" for place in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def harm_by_training_again(folder):
    (folder / "generator.safetensors").write_bytes((folder / "generator.safetensors").read_bytes()[::-1])


def harm_by_another_plan(folder):
    plan = json.loads((folder / "plan.json").read_text())
    write_json(folder / "plan.json", plan | {"seed": 99})


def harm_by_a_stranger(folder):
    (folder / "samples-017.npz").write_bytes((folder / "samples-000.npz").read_bytes())


def harm_by_doubling(folder):
    listed = json.loads((folder / "samples.json").read_text())["parts"]
    changed(folder, parts=[listed[0], listed[0] | {"first": 16}, listed[2]])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (harm_a_pixel, "samples-001.npz is damaged or of another set"),
        (harm_by_cutting, "samples-002.npz"),
        (harm_by_swapping, "samples-000.npz is damaged or of another set"),
        (harm_by_training_again, "drawn from another generator"),
        (harm_by_another_plan, "of another plan"),
        (harm_by_a_stranger, "samples-017.npz is no part of the set"),
        (harm_by_doubling, "samples-000.npz' twice"),
        (lambda folder: (folder / "samples.json").unlink(), "no samples.json"),
        (lambda folder: (folder / "samples.json").write_text("[1, 2"), "samples.json"),
        (lambda folder: (folder / "samples.json").write_text("[]"), "is no manifest of samples"),
        (lambda folder: changed(folder, num=True), "is no manifest of samples"),
        (lambda folder: changed(folder, num=60_000), "its parts hold 40 of 60000 images"),
        (lambda folder: changed(folder, parts=[]), "hold 0 of 40 images"),
    ],
)
def test_what_is_not_one_whole_set_is_not_joined(parted, capsys, harm, told):
    folder, _ = parted
    assert joined(folder, capsys) == 40
    harm(folder)
    assert told in joined(folder, capsys)


def test_joining_nothing_says_what_to_do(tmp_path, capsys):
    assert main(["join", str(tmp_path), "--out", str(tmp_path / "all.npz")]) == 2
    assert "python -m methods run" in capsys.readouterr().err


def outputs_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


OUTPUTS = ("generator.safetensors", "log.csv", "ledger.jsonl", "run.json")


@pytest.mark.parametrize("lost", [*((name,) for name in OUTPUTS), OUTPUTS, (*OUTPUTS[:1], "samples-001.npz")])
def test_whatever_a_finished_run_has_lost_is_put_back_by_the_same_call(parted, capsys, monkeypatch, lost):
    folder, again = parted
    before = outputs_of(folder)
    for name in lost:
        (folder / name).unlink()
    killed_at(monkeypatch, "gs_wgan", 0)
    assert again() == 0 and outputs_of(folder) == before
    assert "nothing is trained or charged" in capsys.readouterr().err
    assert joined(folder, capsys) == 40


def test_a_ledger_that_was_cut_is_put_back_by_the_same_call(parted, capsys):
    folder, again = parted
    whole = (folder / "ledger.jsonl").read_bytes()
    (folder / "ledger.jsonl").write_bytes(whole[: whole.index(b"\n") + 1])
    assert again() == 0 and (folder / "ledger.jsonl").read_bytes() == whole
    assert joined(folder, capsys) == 40


def test_another_ledger_in_place_of_a_finished_runs_own_is_not_written_over(parted, capsys):
    folder, _ = parted
    (folder / "ledger.jsonl").write_bytes(other := b'{"another": "run"}\n')
    (folder / "generator.safetensors").unlink()
    sample = ["sample", "--run", str(folder), "--num", "10", "--out", str(folder.parent / "ten.npz")]
    assert main(sample) == 2 and "private/end and call again" in capsys.readouterr().err
    assert (folder / "ledger.jsonl").read_bytes() == other


def test_sampling_puts_a_lost_generator_back_and_one_of_another_plan_not(parted, capsys):
    folder, _ = parted
    sample = ["sample", "--run", str(folder), "--num", "10", "--out", str(folder.parent / "ten.npz")]
    before = outputs_of(folder)
    for name in ("generator.safetensors", "ledger.jsonl"):
        (folder / name).unlink()
    assert main(sample) == 0 and outputs_of(folder) == before
    assert "put back" in capsys.readouterr().err
    (folder / "generator.safetensors").unlink()
    harm_by_another_plan(folder)
    assert main(sample) == 2
    assert "train the run first" in capsys.readouterr().err and not (folder / "generator.safetensors").exists()


def exchanged(path: Path) -> None:
    """Puts a generator of the same shapes in the place of one, as a file of its own."""
    state = {name: value + 0.5 for name, value in load_file(path).items()}
    path.unlink()
    save_file(state, path)


def test_a_generator_of_the_same_shapes_is_not_taken_for_the_runs_own(parted, capsys):
    folder, again = parted
    path, out = folder / "generator.safetensors", folder.parent / "ten.npz"
    sample = lambda: main(["sample", "--run", str(folder), "--num", "10", "--out", str(out)])  # noqa: E731
    before, record = outputs_of(folder), json.loads((folder / "run.json").read_text())
    exchanged(path)
    for call in (again, sample):
        capsys.readouterr()
        assert call() == 2 and f"{path} is not the generator that this run trained" in capsys.readouterr().err
    changed(folder, generator=sha256(path))
    assert "another generator than run.json tells of" in joined(folder, capsys) and not out.exists()
    path.unlink()
    assert again() == 0 and outputs_of(folder) == before and joined(folder, capsys) == 40
    # The kept one is the same file, unless it was replaced by name.
    exchanged(folder / "private" / "end" / "generator.safetensors")
    path.unlink()
    assert again() == 2 and "end/generator.safetensors is not the generator" in capsys.readouterr().err
    # A record of an earlier version tells of none.
    for place in (folder, folder / "private" / "end"):
        write_json(place / "run.json", {key: record[key] for key in record if key != "generator_sha256"})
    assert again() == 0


@pytest.mark.parametrize("count", ["published", "sound"])
def test_a_record_that_tells_of_less_than_its_ledger_is_refused_by_the_same_call(parted, capsys, count):
    folder, again = parted
    path, before = folder / "run.json", outputs_of(folder)
    record = json.loads(path.read_text())
    write_json(path, record | {f"eps_{count}": record[f"eps_{count}"] * 0.9})
    capsys.readouterr()
    assert again() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path} tells of epsilon" in line and "the record was changed" in line
    path.unlink()
    assert again() == 0 and outputs_of(folder) == before


@pytest.mark.parametrize("name", ["generator.safetensors", "ledger.jsonl"])
def test_what_is_lost_for_good_is_one_line_that_names_it(parted, capsys, name):
    folder, again = parted
    shutil.rmtree(folder / "private")
    (folder / name).unlink()
    capsys.readouterr()
    assert again() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"is a finished run without its {name}" in line and not (folder / name).exists()


def test_a_whole_folder_is_not_written_to_and_swept_only_while_nobody_holds_it(parted, capsys):
    folder, again = parted
    shutil.rmtree(folder / "private")
    assert again() == 0 and not (folder / "private").exists()
    (folder / "private").mkdir()
    (folder / "private" / "checkpoint.pt").write_bytes(b"left by a kill")
    with held(folder):
        assert again() == 2
        assert "in use by another process" in capsys.readouterr().err
        assert (folder / "private" / "checkpoint.pt").exists()
    assert again() == 0 and not (folder / "private" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    "name",
    [*OUTPUTS, "samples-007.npz", "samples-000.npz", "samples.json", "ledger-1.jsonl", "plan.json", "private/x.npz"],
)
def test_no_samples_are_written_over_a_runs_own_files(parted, capsys, monkeypatch, name):
    folder, _ = parted
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.chdir(folder)
    for out in (str(folder / name), name, f"../run/{name}"):
        for command in (["join", str(folder)], ["sample", "--run", str(folder), "--num", "4"]):
            capsys.readouterr()
            assert main([*command, "--out", out]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert "has the name of a file of the run" in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert main(["join", str(folder), "--out", str(folder / "samples.npz")]) == 0
    assert joined(folder, capsys) == 40
