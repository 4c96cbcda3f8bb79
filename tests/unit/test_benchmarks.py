"""The speed measurements: the yardstick is the same algorithm as the engine, and the figures are what they say."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg

from benchmarks import __main__ as command
from benchmarks import choices, clock, plot, point, roofline, scaling, textbook, textbook_nets
from benchmarks.contestants import BUDGET, public_of, records
from benchmarks.roofline import flops, kernel_seconds
from benchmarks.sizes import Axis, Case, full, quick
from benchmarks.table import Row, to_csv
from methods.core import registry
from methods.core.method import Context
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.noise import clip_rows
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec
from methods.core.runs.peak_memory import peak_memory_mib
from methods.core.sharded import gan, losses, nets
from methods.core.speed import precision
from methods.core.speed.choices import CHOICES
from workflow.common.errors import UserError

CPU = torch.device("cpu")
TINY = {
    "steps": 4, "batch_size": 3, "num_shards": 2, "critic_batch": 4, "critic_steps": 2, "warm_start_steps": 1,
    "warm_start_width": 2, "generator": "dcgan", "generator_width": 2, "critic_width": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pair(kind: str, shape=(1, 28, 28), spectral=True):
    """Returns the engine's network and the textbook's with its weights, neither moving spectral norm's vectors."""
    arguments = (shape, 10, 2) if kind == "DCGANGenerator" else (shape, 10, 2, spectral)
    ours, plain = getattr(nets, kind)(*arguments), getattr(textbook_nets, kind)(*arguments)
    plain.load_state_dict(ours.state_dict())
    return ours.eval(), plain.eval()


def batch(count=4, shape=(1, 28, 28)):
    return torch.rand(count, *shape), torch.rand(count, *shape), torch.arange(count) % 10


def weight_gradients(network, loss):
    loss.backward()
    return [parameter.grad for parameter in network.parameters()]


def close(ours, plain):
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize("kind", ["ResNetGenerator", "DCGANGenerator"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_the_textbook_generators_make_the_engines_images(kind, shape):
    ours, plain = pair(kind, shape)
    latents, labels = nets.draw_latents(4, torch.Generator().manual_seed(0)), torch.arange(4)
    assert torch.allclose(ours(latents, labels), plain(latents, labels), atol=1e-5)


@pytest.mark.parametrize("spectral", [True, False])
def test_the_textbook_critic_has_the_engines_loss_and_gradients(spectral):
    ours, plain = pair("Critic", spectral=spectral)
    real, fake, labels = batch()
    share, hp = torch.rand(4, 1, 1, 1), registry.hyper("gs_wgan", {"drift": 0.5})
    expected = losses.critic_loss(ours, real, fake, labels, share, hp.gradient_penalty, hp.drift, "fp32")
    loss = textbook.critic_loss(plain, real, fake, labels, share, hp)
    assert torch.allclose(loss, expected, rtol=1e-5)
    assert close(weight_gradients(ours, expected), weight_gradients(plain, loss))


@pytest.mark.parametrize("spectral", [True, False])
def test_the_textbook_classifier_has_the_engines_loss_and_gradients(spectral):
    ours, plain = pair("Classifier", spectral=spectral)
    images, _, labels = batch()
    hp = registry.hyper("dpac", {"drift": 0.5})
    expected = losses.score_loss(ours, images, labels, hp.gradient_penalty, hp.drift, "fp32")
    loss = textbook.classifier_loss(plain, images, labels, hp)
    assert torch.allclose(loss, expected, rtol=1e-5)
    assert close(weight_gradients(ours, expected), weight_gradients(plain, loss))


@pytest.mark.parametrize("kind", ["Critic", "Classifier"])
def test_the_textbook_image_gradients_are_the_engines(kind):
    ours, plain = pair(kind)
    _, fake, labels = batch()
    expected = losses.image_gradients(ours, fake, labels, "fp32")
    assert torch.allclose(textbook.image_gradients(plain, fake, labels), expected, rtol=1e-4, atol=1e-7)


def test_the_textbook_clips_each_image_and_then_adds_noise():
    gradients = torch.randn(50, 1, 28, 28) * torch.logspace(-3, 3, 50).view(-1, 1, 1, 1)
    clipped = clip_rows(gradients.flatten(1), 0.5, "gaussian").view_as(gradients)
    assert torch.allclose(textbook.sanitise(gradients, 0.5, 0.0), clipped, rtol=1e-5, atol=1e-6)
    noise = textbook.sanitise(gradients, 0.5, 3.0) - clipped
    assert float(noise.std()) == pytest.approx(3.0, rel=0.03)


def test_a_whole_textbook_iteration_moves_every_network_as_the_engines_does(tmp_path, monkeypatch):
    # One shard of equal records, one class, no penalty, no noise, and a generator that ignores its latents: no draw
    # can matter, so the two must take the same steps.
    monkeypatch.setattr(Grant, "rows", lambda self, rows: clip_rows(rows, self.release.clip, "gaussian"))
    settings = TINY | {"num_shards": 1, "warm_start_steps": 0, "gradient_penalty": 0.0, "spectral_norm": False}
    hp = registry.hyper("gs_wgan", settings | {"clip": 0.01, "critic_learning_rate": 0.01})
    images, labels = records(1)[0].repeat(8, 1, 1, 1), torch.zeros(8, dtype=torch.int64)
    public = PublicSpec("synthetic", (1, 28, 28), 1, 8)
    method = registry.load("gs_wgan")
    releases = method.plan(hp, public, BUDGET)
    ours = method(hp, Context(public, releases, 0, CPU))
    plain = textbook.GSWGAN(textbook.Problem(hp, images, labels, 1, CPU), noise=0.0)
    with Ledger.open(tmp_path / "ledger.jsonl", releases, BUDGET) as ledger:
        data = PrivateData(images, labels)
        ours.prepare(data, ledger)
        with torch.no_grad():
            ours.generator.entry.linear.weight[:, : nets.LATENT_BITS] = 0
        plain.generator.load_state_dict(ours.generator.state_dict())
        plain.average.load_state_dict(ours.public_state())
        plain.first_critic.load_state_dict(ours.critics.take(0).scorer.state_dict())
        ours.step(0, data, ledger)
    plain.step(0)
    critics = ours.critics.take(0).scorer.state_dict(), plain.critic(0)[0].state_dict()
    generators = ours.private_state()["generator"], plain.generator.state_dict()
    averages = ours.public_state(), plain.average.state_dict()
    for (expected, got), rate in ((critics, 0.01), (generators, 1e-4), (averages, 1e-4)):
        for name in expected.keys() - {"entry.linear.weight"}:
            # Adam's first steps have the size of the rate whatever the gradient: a wrong sign is a whole rate off.
            assert float((expected[name] - got[name]).abs().mean()) < 0.02 * rate, name


def test_every_measured_choice_but_the_precision_is_one_of_the_engines():
    assert all(choice.turned_off in vars(CHOICES) for choice in choices.MEASURED if not choice.hyper)
    cases = {case for choice in choices.MEASURED for case in choice.cases}
    assert cases <= {**full().iterations, **full().warm_start}.keys()


@pytest.mark.parametrize("case", ["gs_wgan_quick", "warm_start_quick"])
def test_a_choice_is_off_where_the_plain_side_is_built_and_runs_and_nowhere_else(monkeypatch, case):
    sizes, seen = tiny(), []
    choice = choices.Choice("fused Adam", (case,), "fused_adam")
    adam = gan.adam

    def noted(*arguments):
        seen.append(CHOICES.fused_adam)
        return adam(*arguments)

    monkeypatch.setattr(gan, "adam", noted)
    monkeypatch.setattr(choices, "our_warm_start", lambda *_: seen.append(CHOICES.fused_adam))
    monkeypatch.setattr(choices, "MEASURED", (choice,))
    rows = list(choices.measure(sizes, 1, CPU))
    assert [row.quantity for row in rows[0]] == ["with", "without", "gain"]
    assert seen[:2] == [True, False] if case == "gs_wgan_quick" else seen[-2:] == [True, False]
    assert CHOICES.fused_adam


@pytest.mark.parametrize("there", [True, False])
def test_bf16_is_compared_with_single_precision_only_where_the_device_has_its_instructions(monkeypatch, there):
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: there)
    names = [choice.name for choice in choices.measured(CPU)]
    assert ("bf16" in names) is there and len(names) == len(choices.MEASURED) - (not there)
    assert choices.count(full(), CPU) == sum(len(choice.cases) for choice in choices.MEASURED) - (0 if there else 3)
    assert choices.measured(torch.device("cuda")) == list(choices.MEASURED)
    assert len(list(roofline.measure(tiny(), 1, CPU))) == roofline.count(tiny(), CPU)
    rows = [row for of_case in roofline.measure(tiny(), 1, CPU) for row in of_case]
    of_bf16 = {"convolution_bf16", "matmul_bf16", "share_of_convolution_bf16"}
    seen = {row.case for row in rows} | {row.quantity for row in rows}
    assert of_bf16 <= seen if there else not of_bf16 & seen
    assert ("share_of_convolution_fp32" in seen) is not there and {"convolution_fp32", "matmul_fp32"} <= seen


def problem(method, **overrides):
    hp = registry.hyper(method, TINY | overrides)
    return textbook.Problem(hp, *records(40), 10, CPU)


def test_each_textbook_critic_update_reads_the_drawn_shard_and_makes_its_own_fakes(monkeypatch):
    trained = problem("gs_wgan")
    loop, reads, passes = textbook.GSWGAN(trained, 1.0), [], []
    monkeypatch.setattr(trained, "read", lambda shard, read=trained.read: reads.append(shard) or read(shard))
    loop.generator.register_forward_hook(lambda net, arguments, fakes: passes.append(fakes.requires_grad))
    loop.step(0)
    assert reads == list(loop.critics) * 2
    assert passes == [False, False, True]


def test_the_textbook_generator_sees_gradients_clipped_and_noised_as_planned(monkeypatch):
    trained, asked = problem("gs_wgan", clip=0.7), []
    monkeypatch.setattr(textbook, "sanitise", lambda rows, *how: asked.append((rows.shape, *how)) or rows)
    textbook.GSWGAN(trained, 5.0).step(0)
    assert asked == [((3, 1, 28, 28), 0.7, 5.0)]


def test_textbook_shards_are_disjoint():
    assert len(problem("gs_wgan", num_shards=3).shards.unique()) == 39


def test_the_textbook_classifier_learns_one_set_of_fakes_then_fresh_records_and_joins_by_weight(monkeypatch):
    phases = {"classifier_fake_steps": 2, "classifier_real_steps": 3, "fakes_per_class": 1}
    trained = problem("dpac", **phases, classifier_weight=0.3)
    loop = textbook.DPAC(trained, 1.0)
    lessons = list(loop.lessons(0))
    assert [len(labels) for _, labels in lessons] == [10, 10, 4, 4, 4]
    assert torch.equal(lessons[0][0], lessons[1][0]) and not torch.equal(lessons[2][0], lessons[3][0])
    monkeypatch.setattr(loop, "lessons", lambda shard: [])
    critic, classifier = trained.scorer(textbook_nets.Critic), trained.scorer(textbook_nets.Classifier)
    monkeypatch.setattr(trained, "scorer", lambda kind: classifier)
    _, fakes, labels = batch()
    of_critic, of_classifier = (textbook.image_gradients(net, fakes, labels) for net in (critic, classifier))
    expected = 0.8 / 1.1 * of_critic + 0.3 / 1.1 * of_classifier
    assert torch.allclose(loop.gradients(critic, fakes, labels, 0), expected, atol=1e-7)


def test_the_textbook_warm_start_trains_a_critic_of_its_own_for_each_shard():
    trained = problem("gs_wgan", num_shards=3)
    states = textbook.warm_start(trained)
    first, second, third = (state["trunk.0.parametrizations.weight.original"] for state in states)
    assert not torch.equal(first, second) and not torch.equal(second, third)
    assert states[0].keys() == nets.Critic((1, 28, 28), 10, 2).state_dict().keys()


def test_speedup_is_the_ratio_of_medians_and_its_spread_that_of_pairs():
    comparison = clock.Comparison(ours=(1.0, 2.0, 4.0), other=(10.0, 16.0, 12.0))
    assert comparison.speedup == 6.0
    assert comparison.spread == (3.0, 10.0)


def test_contestants_run_in_turn_after_a_warm_up_in_blocks_of_the_least_time(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def contestant(name, cold, warm):
        def run():
            now[0] += cold if name not in calls else warm
            calls.append(name)

        return run

    comparison = clock.alternate(contestant("A", 3.0, 0.5), contestant("B", 9.0, 8.0), CPU, repeats=2, least=1.0)
    assert "".join(calls) == "AA" + "B" + "AAB" * 2
    assert comparison == clock.Comparison((0.5, 0.5), (8.0, 8.0))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("convolve", [F.conv2d, F.conv_transpose2d])
def test_executed_flops_are_two_a_multiplication_and_threefold_with_both_gradients(groups, convolve):
    images = torch.randn(2, 8, 6, 6, requires_grad=True)
    weight = torch.randn(8, 8 // groups, 3, 3, requires_grad=True)
    forward = 2 * 2 * 36 * 8 * (8 // groups) * 9
    with torch.no_grad():
        assert flops(lambda: convolve(images, weight, padding=1, groups=groups)) == forward
    assert flops(lambda: convolve(images, weight, padding=1, groups=groups).sum().backward()) == 3 * forward


def test_flops_of_a_gradient_penalty_are_counted():
    critic = textbook_nets.Critic((1, 28, 28), 10, 2, spectral=False)
    images, _, labels = batch()

    def update():
        at = images.clone().requires_grad_()
        textbook.gradient_penalty(critic(at, labels), at).backward()

    with torch.no_grad():
        forward = flops(lambda: critic(images, labels))
    assert flops(update) > 4 * forward


def test_only_time_within_convolutions_and_products_counts_as_theirs(monkeypatch):
    images, weight = torch.randn(2, 8, 6, 6), torch.randn(8, 8, 3, 3)
    # A clock that goes a second whenever it is read.
    ticks = itertools.count()
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: float(next(ticks)))
    assert kernel_seconds(lambda: images.sin().sum()) == 0
    assert kernel_seconds(lambda: (images.sin(), F.conv2d(images, weight))) == 1
    assert kernel_seconds(lambda: (F.conv2d(images, weight), weight[0, 0] @ weight[0, 0])) == 2


def test_rows_become_tidy_csv():
    rows = [
        Row("throughput", "resnet64", None, "speedup", 2.0 / 3, "x", 0.5, 1.0),
        Row("scaling", "steps", 50, "total_seconds", 12345.678, "s"),
    ]
    assert to_csv(rows).splitlines() == [
        "part,case,at,quantity,value,unit,low,high",
        "throughput,resnet64,,speedup,0.6667,x,0.5,1",
        "scaling,steps,50,total_seconds,1.235e+04,s,,",
    ]


def test_quick_cases_have_the_presets_settings_and_paper_cases_the_published_ones():
    sizes = full()
    for name in ("gs_wgan", "dpac"):
        hp, preset = sizes.iterations[f"{name}_quick"].hp, quick(name).hp
        assert replace(hp, steps=preset.steps, warm_start_steps=preset.warm_start_steps) == preset
        assert preset.critic_width < registry.hyper(name, {}).critic_width
    assert sizes.warm_start["warm_start_quick"].hp.warm_start_steps == quick("gs_wgan").hp.warm_start_steps
    resnet = sizes.iterations["resnet64"].hp
    assert resnet == registry.hyper("gs_wgan", {"precision": "bf16", "warm_start_steps": 0, "steps": resnet.steps})


def test_every_size_of_the_default_run_is_one_that_the_method_accepts():
    sizes = full()
    points = [scaling.point(axis, value, sizes) for axis in sizes.axes for value in axis.values]
    cases = [*sizes.iterations.values(), *(Case("gs_wgan", of_axis.hyper) for of_axis in points)]
    for case in cases:
        public = public_of(torch.zeros(case.hp.num_shards, 1, 28, 28))
        (release,) = registry.load(case.method).plan(case.hp, public, BUDGET)
        assert release.max_uses >= max(of_axis.steps for of_axis in points)


def test_a_scaling_axis_changes_its_own_setting_alone():
    sizes = full()
    wide = scaling.point(Axis("critic_width", "step", (64,)), 64, sizes)
    assert wide.hyper == {**sizes.scaled, "critic_width": 64} and wide.steps == sizes.steps
    assert scaling.point(Axis("image_size", "step", (32,)), 32, sizes).image_size == 32
    assert scaling.point(Axis("steps", "total", (50,)), 50, sizes).steps == 50
    assert scaling.point(Axis("num_shards", "warm_start", (16,)), 16, sizes).hyper["num_shards"] == 16


def test_a_point_times_each_step_or_the_warm_start_of_all_shards(monkeypatch):
    trained = []
    make = point.our_warm_start
    monkeypatch.setattr(
        point, "our_warm_start", lambda case, *rest: trained.append(case.hp.num_shards) or make(case, *rest)
    )
    assert len(point.run(point.Point(TINY | {"steps": 50}, 28, 10, 3), CPU)) == 3
    assert trained == []
    assert len(point.run(point.Point(TINY | {"num_shards": 3}, 28, 10, 0), CPU)) == 1
    assert trained == [point.WARM_UP_SHARDS, 3]


def test_a_points_memory_is_its_own_and_not_that_of_the_process_that_started_it():
    ballast = torch.ones(2**27)  # 512 MiB
    here = peak_memory_mib(CPU)
    del ballast
    seconds, peak = point.in_own_process(point.Point(TINY | {"steps": 50}, 28, 10, 1), 1, CPU)
    assert len(seconds) == 1
    assert 50 < peak < here - 256


@pytest.mark.parametrize("wrong", ["{}", '{"hyper": {}, "image_size": "28", "shard_size": 5, "steps": 1}', "[]", "{"])
def test_a_point_without_its_fields_is_one_line(wrong, capsys):
    assert point.main([wrong, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_a_point_whose_process_fails_is_one_error(monkeypatch):
    monkeypatch.setattr(point.sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="ended with 1"):
        point.in_own_process(point.Point({"batch_size": 3}, 28, 20, 1), 1, CPU)


def clips_nothing(figure):
    FigureCanvasAgg(figure).draw()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height


def test_the_plot_labels_every_axis_and_clips_no_text():
    sizes = full()
    rows = [Row("throughput", name, None, "speedup", 3.0, "x", 1.0, 20.0) for name in sizes.iterations]
    of_cases = [(choice.name, case) for choice in choices.MEASURED for case in choice.cases]
    rows += [Row("choices", f"{name} ({case})", None, "gain", 2.0, "x", 1.0, 2.5) for name, case in of_cases]
    rows += [Row("roofline", "convolution_bf16", None, "rate", 1234.5, "GFLOP/s", 1200.0, 1300.0)]
    for axis in sizes.axes:
        rows += [row for value in axis.values for row in scaling.rows(axis, value, [1e-3, 2e-3], 512.0)]
    figure = plot.draw(rows)
    assert len(figure.axes) == 3 + len(sizes.axes) + 1
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert all(axes.get_ylabel() or axes.get_title() for axes in figure.axes)
    assert clips_nothing(figure)
    assert len(plot.draw(rows[:1]).axes) == 1


@pytest.mark.parametrize("there", [True, False])
def test_the_command_says_that_cases_in_bfloat16_are_in_single_precision(tmp_path, monkeypatch, capsys, there):
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: there)
    monkeypatch.setattr(command, "PARTS", {"throughput": SimpleNamespace(count=lambda *_: 0, measure=lambda *_: [])})
    monkeypatch.setattr(plot, "write", lambda *_: None)
    monkeypatch.setattr(command, "use_machine", lambda _: CPU)
    assert command.main(["--only", "throughput", "--out", str(tmp_path)]) == 0
    assert ("computing in single precision" in capsys.readouterr().err) is not there
    assert json.loads((tmp_path / "provenance.json").read_text())["bfloat16"] is there


def tiny():
    run = {"steps": 50, "warm_start_steps": 0}
    dpac = {"classifier_start": 1, "classifier_fake_steps": 1, "classifier_real_steps": 1, "fakes_per_class": 1}
    return replace(
        full(),
        iterations={
            "resnet64": Case("gs_wgan", TINY | run | {"generator": "resnet"}),
            "resnet64_fp32": Case("gs_wgan", TINY | run | {"generator": "resnet"}),
            "gs_wgan_quick": Case("gs_wgan", TINY | run),
            "dpac_quick": Case("dpac", TINY | run | dpac),
        },
        warm_start={"warm_start_quick": Case("gs_wgan", TINY)},
        num_train=40, shard_size=10, seconds=0.0, channels=4, batch=2, pixels=(8,), matrix={"cpu": 16},
        scaled=TINY | {"steps": 50},
        axes=(Axis("image_size", "step", (32,)),), steps=2,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_measures_every_part_and_writes_table_provenance_and_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "full", tiny)
    arguments = ["--threads", "1", "--device", "cpu", "--repeats", "2", "--out", str(tmp_path / "out")]
    assert command.main(arguments) == 0
    with (tmp_path / "out" / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = {(row["part"], row["case"], row["quantity"]) for row in rows}
    assert {
        ("throughput", "resnet64", "speedup"), ("throughput", "dpac_quick", "ours"),
        ("throughput", "warm_start_quick", "textbook"), ("roofline", "convolution_bf16", "rate"),
        ("choices", "bf16 (resnet64)", "with"), ("choices", "stacks of shards (warm_start_quick)", "gain"),
        ("roofline", "matmul_fp32", "rate"), ("roofline", "resnet64", "share_of_convolution_bf16"),
        ("roofline", "resnet64", "share_within_convolutions_and_products"),
        ("scaling", "image_size", "step_seconds"), ("scaling", "image_size", "peak_memory"),
    } <= measured  # fmt: skip
    assert all(float(row["value"]) > 0 for row in rows)
    spread = [row for row in rows if row["low"]]
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in spread if row["unit"] != "x")
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert {"commit", "processor", "threads", "sizes", "repeats"} <= record.keys()
    assert (tmp_path / "out" / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("times as fast as the textbook loop") == 5


@pytest.mark.parametrize("wrong", [["--only", "speed"], ["--repeats", "0"], ["--threads", "0"], ["--device", "tpu9"]])
def test_a_wrong_argument_is_one_line(wrong, capsys):
    assert command.main(wrong) == 2
    assert capsys.readouterr().err.startswith("error: ")
