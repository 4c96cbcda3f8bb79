"""Each method says where equal tuning looks for its settings, within what the settings may be."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

import pytest

from methods.core import registry
from workflow import presets
from workflow.common.errors import UserError
from workflow.common.search_space import Choice, choice, draw, linear, log, times
from workflow.common.settings import setting
from workflow.datasets.sources import NAMES
from workflow.grid import Run
from workflow.tune.rows import tuned_rows

CONFIG = presets.load(
    {"datasets": ["mnist_val", "fashion_mnist_val"]}, datasets=NAMES, methods=registry, protocol_keys=None, tuned=False
)
TUNED = [CONFIG.runs[name] for name in tuned_rows(CONFIG)]


def before(run: Run) -> object:
    return registry.hyper(run.method, run.hyper["mnist_val"])


def test_every_row_of_quick_that_has_settings_of_its_own_is_tuned_and_an_ablation_is_not():
    assert {run.name for run in TUNED} == {
        "dp_gauss", "dp_merf", "dp_ntk", "dp_cgan", "dp_sinkhorn", "dpgan", "pate_gan", "g_pate", "datalens", "gs_wgan",
        "dpac", "gs_wgan_sound", "dpac_sound", "dpac_scatter", "nonprivate",
    }  # fmt: skip


@pytest.mark.parametrize("run", TUNED, ids=lambda run: run.name)
def test_a_space_is_of_settings_that_there_are_and_within_their_limits(run: Run):
    present = before(run)
    fields, hints = {f.name: f for f in dataclasses.fields(present)}, get_type_hints(type(present))
    space = registry.load(run.method).search_space(present)
    assert len(space) >= 5
    for name, where in space.items():
        field = fields[name]
        if isinstance(where, Choice):
            assert len(set(where.values)) > 1
            for value in where.values:
                registry.hyper(run.method, {name: value})
            continue
        assert hints[name] in (int, float)
        low, high = where.limits(getattr(present, name), field)
        assert field.metadata["low"] <= low < high <= field.metadata["high"], name
        assert low > 0 or not where.log


@pytest.mark.parametrize("run", TUNED, ids=lambda run: run.name)
def test_what_is_drawn_is_what_the_method_takes(run: Run):
    present = before(run)
    space = registry.load(run.method).search_space(present)
    drawn = [draw(space, present, 0, run.name, trial) for trial in range(1, 60)]
    for values in drawn:
        registry.hyper(run.method, {**run.hyper["mnist_val"], **values})
    assert all(len({values[name] for values in drawn if name in values}) > 1 for name in space)


def test_the_ablation_that_mixes_its_phases_can_take_whatever_its_parent_is_tuned_to():
    mixed = CONFIG.runs["dpac_wo_seq_mixed"]
    assert {"classifier_fake_steps", "classifier_real_steps"}.isdisjoint(
        registry.load("dpac").search_space(before(CONFIG.runs["dpac"]))
    )
    hp = registry.hyper("dpac", mixed.hyper["mnist_val"])
    assert hp.classifier_fake_steps == hp.classifier_real_steps


def test_a_warm_start_is_made_once_for_all_trials_of_a_row():
    run = CONFIG.runs["dpac"]
    method, present = registry.load("dpac"), before(run)
    drawn = [draw(method.search_space(present), present, 0, "dpac", trial) for trial in range(1, 10)]
    starts = [method.warm_start(registry.hyper("dpac", {**run.hyper["mnist_val"], **values})) for values in drawn]
    assert method.warm_start(present) is not None and all(one == method.warm_start(present) for one in starts)


@dataclasses.dataclass(frozen=True)
class Toy:
    rate: float = setting(0.5, "a rate", low=0.1, high=0.9)
    steps: int = setting(8, "steps", low=1, high=10)
    kind: str = setting("a", "kind", choices=("a", "b"))
    zero: float = setting(0.0, "off", low=0, high=1)


def test_factors_stop_at_the_setting_s_own_limits():
    values = [draw({name: times(0.01, 100)}, Toy(), 0, n) for name in ("rate", "steps") for n in range(200)]
    rates, steps = [v["rate"] for v in values if "rate" in v], [v["steps"] for v in values if "steps" in v]
    assert min(rates) >= 0.1 and max(rates) <= 0.9
    assert set(steps) == set(range(1, 11))


def test_magnitudes_are_as_likely_by_logarithm_and_values_where_it_is_linear():
    rates, zeros = ([draw({name: where}, Toy(), 0, n)[name] for n in range(400)] for name, where in
                    (("rate", log(0.1, 0.9)), ("zero", linear(0, 1))))  # fmt: skip
    assert 170 < sum(rate < 0.3 for rate in rates) < 230
    assert 170 < sum(zero < 0.5 for zero in zeros) < 230


def test_a_trial_draws_a_third_of_the_settings_anew_and_never_none():
    space = {"rate": log(0.1, 0.9), "steps": times(0.1, 10), "kind": choice("a", "b"), "zero": linear(0, 1)}
    drawn = [draw(space, Toy(), 0, n) for n in range(600)]
    assert all(drawn) and {len(values) for values in drawn} == {1, 2, 3, 4}
    # A third of four, and the one that is drawn where by chance none would be.
    expected = 4 / 3 + (2 / 3) ** 4
    assert sum(map(len, drawn)) / len(drawn) == pytest.approx(expected, rel=0.06)
    assert all(140 < sum(name in values for values in drawn) < 300 for name in space)


def test_draws_follow_seed_and_names_and_a_further_setting_moves_none():
    space = {"rate": log(0.1, 0.9), "kind": choice("a", "b")}
    for trial in range(20):
        first = draw(space, Toy(), 0, "x", trial)
        assert first == draw(space, Toy(), 0, "x", trial)
        more = draw({"steps": times(0.5, 2), **space}, Toy(), 0, "x", trial)
        assert all(more[name] == value for name, value in first.items() if name in more)
    alike = [draw({name: linear(0.1, 0.9)}, Toy(), 0, "x", 1)[name] for name in ("rate", "zero")]
    assert alike[0] != alike[1]
    one = {"rate": log(0.1, 0.9)}
    assert len({draw(one, Toy(), *path)["rate"] for path in ((0, "x", 1), (1, "x", 1), (0, "x", 2))}) == 3


def test_factors_on_nothing_are_refused():
    with pytest.raises(UserError, match="zero is searched by factors on what it is, which must be above 0; got 0"):
        draw({"zero": times(0.5, 2)}, Toy(), 0)
