"""A plan: what it records of a run, and that its JSON, which keys all noise, is a fixed form."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from toys import CPU, TINY_DPAC, TOY, toy_images, toy_records

from methods.core.accounting.calibration import epsilon
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.runs.noise_key import of_records
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json

SOUND = Budget(10.0, 1e-5, "sound")


def plan(budget: Budget = SOUND, seed: int = 0, **hyper) -> Plan:
    return Plan.make("dpac", "a_run", TINY_DPAC | hyper, TOY, budget, seed)


def test_a_plan_is_read_back_from_its_json_as_it_was(tmp_path):
    free, over = Budget(math.inf, 1e-5, "none"), Budget(10.0, 1e-5, "published", over_budget=True)
    for number, one in enumerate((plan(), plan(free), plan(over, as_released=True))):
        write_json(tmp_path / f"{number}.json", one.to_dict())
        again = Plan.from_dict(read_json(tmp_path / f"{number}.json"))
        assert again == one and again.digest == one.digest


def test_the_digest_of_a_known_plan_never_changes():
    """It keys the noise and the secret draws: another form of the JSON would make every run another run."""
    release = dataclasses.replace(plan().releases[0], noise=3.0)
    known = dataclasses.replace(plan(), releases=(release,), costs={"published": 1.0, "sound": 2.0})
    assert known.digest == "babce1ec216de38d901e0e68d690745a0336629509c2b7418d1952ab4fd79d4e"


def test_every_part_of_a_plan_and_every_record_changes_the_noise():
    base = plan()
    others = [
        plan(seed=1), plan(critic_steps=2), plan(Budget(9.0, 1e-5, "sound")), dataclasses.replace(base, run="b_run"),
        dataclasses.replace(base, public=dataclasses.replace(TOY, dataset="other")),
        dataclasses.replace(base, releases=(base.releases[0].used(3),)),
    ]  # fmt: skip
    keys = {of_records(one, toy_records()) for one in (base, *others)}
    assert len(keys) == len(others) + 1
    relabelled = PrivateData(toy_images(), (torch.arange(60) % 10).roll(1))
    for data in (toy_records(changed=59), relabelled):
        assert of_records(base, data) not in keys
    assert of_records(plan(), toy_records()) in keys


def test_the_costs_are_those_of_the_releases_by_both_counts():
    one = plan()
    assert one.costs == {count: epsilon(one.releases, 1e-5, count) for count in ("published", "sound")}
    assert one.costs["sound"] <= 10 and plan(Budget(math.inf, 1e-5, "none")).costs == {}


def test_a_method_is_built_from_the_plan_alone():
    method = plan(seed=7).build(CPU)
    assert (method.hp.batch_size, method.context.seed, method.context.releases) == (3, 7, plan(seed=7).releases)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop("releases"), "not a plan: it lacks 'releases'"),
        (lambda content: content["public"].pop("num_train"), "not a plan"),
        (lambda content: content["releases"][0].update(colour="red"), "not a release"),
        (lambda content: content["hyper"].update(steps=0), "dpac.steps must be 1 to 10000000, got 0"),
        (lambda content: content["hyper"].update(stepz=3), "unknown hyper-parameter of dpac 'stepz'"),
        (lambda content: content.update(method="dpca"), "did you mean 'dpac'?"),
        (lambda content: content.update(epsilon="ten"), "epsilon must be a number above 0"),
        (lambda content: content.update(delta=2), "delta must lie strictly between 0 and 1, got 2"),
        (lambda content: content.update(delta=0.5), "delta must be at most 0.1, got 0.5"),
        (lambda content: content.update(delta="small"), "not a plan"),
        (lambda content: content.update(seed=-1), "a seed must be a whole number from 0 to 9223372036854775807, got"),
        (lambda content: content.update(seed=1.5), "a seed must be a whole number from 0"),
        (lambda content: content.update(seed=True), "got True"),
        (lambda content: content.update(run=""), "a run's name must be a text, got ''"),
        (lambda content: content.update(run=None), "a run's name must be a text, got None"),
        (lambda content: content.update(noise=3), "unknown field of a plan 'noise'"),
        (lambda content: content.update(dataset="mnist"), "its dataset is 'mnist' and its public facts are of 'toy'"),
        (lambda content: content.update(over_budget="yes"), "over_budget must be true or false, got 'yes'"),
        (lambda content: content.update(eps_sound=-1), "eps_sound must be a number from 0, got -1"),
        (lambda content: content.update(epsilon="inf", accounting="none"), "is 'none' by its settings and 'gaussian'"),
        (lambda content: content["hyper"].update(steps=5), "max_uses of release image_gradient is 5 by its"),
        (lambda content: content["hyper"].update(num_shards=61), "num_shards must be at most 60"),
        (lambda content: content["hyper"].update(critic_weight=0, classifier_weight=0), "must not both be 0"),
        (lambda content: content["releases"][0].update(max_uses=400), "max_uses of release image_gradient is 4 by its"),
        (lambda content: content["releases"][0].update(clip=9.0), "clip of release image_gradient is 1.0 by its"),
        (lambda content: content["releases"][0].update(rate=1e-320), "not a plan"),
        (lambda content: content["releases"][0].update(noise=-1.0), "needs a positive clip and a noise >= 0"),
        (lambda content: content["releases"].append(content["releases"][0]), "its settings give 1 releases and it"),
        (lambda content: content["public"].update(image_shape=[1, 27, 27]), "make images of 28x28"),
        (lambda content: content["public"].update(image_shape=[1, 10**9, 10**9]), "data set toy is too large"),
        (lambda content: content["public"].update(num_train=True), "whole numbers above 0"),
        (lambda content: content["public"].update(num_classes=1), "dpac needs at least 2 classes"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(change, says):
    content = json.loads(json.dumps(plan().to_dict()))
    change(content)
    with pytest.raises(UserError) as error:
        Plan.from_dict(content)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_card_whose_name_no_plan_can_hold_is_refused():
    """The plan would be written and never be read again."""
    card = {"dataset": "a\nb", "image_shape": [1, 28, 28], "num_classes": 10, "splits": {"train": {"count": 60}}}
    with pytest.raises(UserError, match="name must be a printable text"):
        PublicSpec.from_card(card)
