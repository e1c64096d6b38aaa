"""The settings of training: sensible ones pass, and all that is wrong is told in one error."""

import math

import pytest

from minipoet.training import TrainSettings, autocast


def test_every_wrong_value_is_told_at_once():
    wrong = {
        "steps": "10", "lr": math.nan, "warmup": 2.5, "schedule": "cosin", "decay": 0.0, "final_lr": 1.5,
        "optimizer": "lion", "muon_lr": math.inf, "weight_decay": None, "betas": (0.9, 1.0), "clip": -1.0,
        "accumulation": 0, "precision": "fp16", "evaluate_every": -1, "patience": True, "save_every": "no", "seed": -3,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"^Training settings: ") as error:
        TrainSettings(**wrong)
    message = str(error.value)
    assert [name for name, value in wrong.items() if f"{name} must" not in message or repr(value) not in message] == []


@pytest.mark.parametrize("value", ["10", 2.5, 0, -1, None, True, math.nan])
def test_steps_must_be_a_whole_number(value):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        TrainSettings(steps=value)


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 0.95, 0.99), ("a", "b"), (-0.1, 0.9), (0.9, math.nan), None])
def test_betas_must_be_two_numbers_below_one(betas):
    with pytest.raises(ValueError, match=r"betas must be two numbers in \[0, 1\)"):
        TrainSettings(steps=1, betas=betas)


def test_patience_needs_evaluations():
    with pytest.raises(ValueError, match="patience counts evaluations"):
        TrainSettings(steps=1, patience=2, evaluate_every=0)


def test_whole_numbers_will_do_for_real_ones():
    assert TrainSettings(steps=1, lr=1, clip=0, decay=1, final_lr=1).lr == 1


def test_autocast_knows_its_words():
    for word in ("auto", "bf16", "fp32"):
        with autocast("cpu", word):
            pass
    with pytest.raises(ValueError, match="precision must be one of auto, bf16, fp32, got 'fp16'"):
        autocast("cpu", "fp16")
