"""Numbers that follow the records: a plan holds what they are for its data, and a plan that cannot work says why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from toys import CPU, TOY, toy_records

from methods.__main__ import main
from methods.core import registry
from methods.core.release import Budget, PublicSpec
from methods.core.runs import warm_start
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.files import read_json
from workflow.common.per_record import PerRecord
from workflow.grid import canonical

SHARDS = {"num_shards": {"one_per": 20, "at_least": 2, "at_most": 100}, "warm_start_steps": 1, "critic_steps": 1,
          "critic_width": 4, "warm_start_width": 4, "critic_batch": 4}  # fmt: skip


def plan(records: int, **hyper: Any) -> Plan:
    public = PublicSpec("lesions", (1, 28, 28), 3, records)
    return Plan.make("gs_wgan", "gs_wgan", SHARDS | {"steps": 2} | hyper, public, Budget(10.0, 1e-5, "sound"), 0)


@pytest.mark.parametrize(("records", "shards"), [(10, 2), (300, 15), (60_000, 100)])
def test_a_plan_holds_the_number_for_its_records(records, shards):
    one = plan(records)
    content = json.loads(json.dumps(one.to_dict()))
    assert (one.hyper.num_shards, content["hyper"]["num_shards"]) == (shards, shards)
    assert one.releases[0].rate == 1 / shards
    assert Plan.from_dict(content) == one


def test_a_plan_is_that_of_the_plain_numbers():
    assert plan(300).digest == plan(300, num_shards=15).digest


def test_the_key_of_a_shared_warm_start_is_written_and_read_back():
    hp = registry.hyper("gs_wgan", SHARDS)
    settings = registry.load("gs_wgan").warm_start(hp)
    assert settings["num_shards"] == PerRecord(20, 2, 100)
    assert json.loads(canonical(settings))["num_shards"] == SHARDS["num_shards"]


def test_a_shared_warm_start_is_made_for_the_numbers_of_its_records(tmp_path: Path):
    hp = registry.hyper("gs_wgan", SHARDS | {"num_shards": {"one_per": 30}})
    settings = json.loads(canonical(registry.load("gs_wgan").warm_start(hp)))
    warm_start.make("gs_wgan", settings, TOY, toy_records(), 0, CPU, tmp_path)
    assert read_json(tmp_path / "done.json")["settings"]["num_shards"] == TOY.num_train // 30
    plain = warm_start.wanted(Plan.make("gs_wgan", "r", SHARDS | {"num_shards": 2}, TOY, Budget(10, 1e-5, "sound"), 0))
    assert read_json(tmp_path / "done.json")["settings"] == plain


def test_the_command_line_takes_them(capsys):
    rule = 'num_shards={"one_per": 60, "at_least": 4}'
    assert main(["account", "gs_wgan", "--records", "600", "--set", rule]) in (0, None)
    assert "one shard of 10" in capsys.readouterr().out


def test_describe_says_that_numbers_may_follow_the_records(capsys):
    main(["describe", "dp_merf"])
    assert "{one_per: 60, at_least: 4, at_most: 1000}" in capsys.readouterr().out


RECORDS = "must be at most 50, the training records of lesions; got 51: give a smaller one, or one that follows the"


@pytest.mark.parametrize(
    ("method", "hyper", "message"),
    [
        *((method, {"batch_size": 51}, f"{method}.batch_size {RECORDS}") for method in ("dp_cgan", "dpgan",
                                                                                       "dp_sinkhorn")),
        *((method, {"num_teachers": 51}, f"{method}.num_teachers {RECORDS}") for method in ("pate_gan", "g_pate",
                                                                                           "datalens")),
        *((method, {"num_shards": 51}, f"num_shards {RECORDS}") for method in ("gs_wgan", "dpac")),
        ("gs_wgan", {"num_shards": 5, "shards_per_step": 6, "warm_start_steps": 0, "spectral_norm": False},
         "shards_per_step must be 0 to num_shards, 5; got 6"),
        ("datalens", {"num_teachers": 5, "top_k": 785}, "datalens.top_k must be 1 to 784"),
        ("g_pate", {"num_teachers": 5, "projected": 785}, "g_pate.projected must be at most 784"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_work_says_what_would(method, hyper, message):
    public = PublicSpec("lesions", (1, 28, 28), 3, 50)
    with pytest.raises(UserError) as error:
        Plan.make(method, method, hyper, public, Budget(10.0, 1e-5, "sound"), 0)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_shards_are_not_for_the_noiseless_twin():
    public = PublicSpec("lesions", (1, 28, 28), 3, 50)
    with pytest.raises(UserError, match=r"nonprivate\.num_shards must be 1, got 51"):
        Plan.make("nonprivate", "r", {"num_shards": 51}, public, Budget(math.inf, 1e-5, "none"), 0)


def test_a_warm_start_empties_no_folder_of_other_things(tmp_path):
    settings = {"num_shards": 6}
    (tmp_path / "holiday.jpg").write_bytes(b"a picture")
    with pytest.raises(UserError, match=r"holds holiday\.jpg, which no warm start left there"):
        warm_start.make("gs_wgan", settings, TOY, toy_records(), 0, CPU, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
