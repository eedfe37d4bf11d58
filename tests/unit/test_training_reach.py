"""Settings of a training that its budget ends before."""

import pytest

from trip_mm.training.config import parse_training_config
from trip_mm.training.reach import describe_unreached


def config(schedule, validation):
    return parse_training_config(
        {
            "name": "x",
            "data": {"files": ["a.h5"]},
            "schedule": {"warmup_steps": 20, **schedule},
            "validation": validation,
            "budget": {"max_epochs": 20},
        },
        "train.yaml",
    )


def test_a_plateau_schedule_that_cannot_act_is_named():
    late = config({"kind": "plateau", "patience": 2}, {"every_steps": 25})
    (line,) = describe_unreached(late, 100)
    assert line == (
        "schedule.patience: 2 lowers the learning rate after validation 4 at the earliest, and "
        "there are 3 before the last of 100 steps; set validation.every_steps to 24 or less, or "
        "raise the budget"
    )
    assert describe_unreached(late, 101) == []
    assert describe_unreached(late, None) == []
    in_time = config({"kind": "plateau", "patience": 2}, {"every_steps": 24})
    assert describe_unreached(in_time, 100) == []


def test_early_stopping_that_cannot_act_is_named():
    late = config({}, {"every_steps": 10, "early_stopping": 9})
    (line,) = describe_unreached(late, 100)
    assert line.startswith("validation.early_stopping: 9 stops after validation 10 at the earliest")
    assert "set validation.every_steps to 9 or less" in line
    assert describe_unreached(late, 101) == []


def test_a_budget_of_too_few_steps_is_not_told_to_validate_more_often():
    late = config({"kind": "plateau", "patience": 2, "warmup_steps": 0}, {"every_steps": 1})
    (line,) = describe_unreached(late, 4)
    assert line.endswith("before the last of 4 steps; raise the budget, or lower it")


def test_a_warmup_that_fills_the_budget_is_named():
    (line,) = describe_unreached(config({"warmup_steps": 100}, {}), 100)
    assert line == (
        "schedule.warmup_steps: 100 fill the budget of 100 steps, and the learning rate only "
        "rises; lower warmup_steps, or raise the budget"
    )
    assert describe_unreached(config({"warmup_steps": 100}, {}), 101) == []


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
def test_other_schedules_need_no_validation(kind):
    assert describe_unreached(config({"kind": kind}, {"every_steps": 500}), 100) == []
