"""Weights in half precision that a learning rate cannot move are told of, by the share that does not move."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prefero.training.rounding import unmoved_share
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import tiny_model

Trainer = Callable[..., PreferenceTrainer]

ADAM = {"optim": "adamw_torch", "weight_decay": 0.0, "max_steps": 1}


@pytest.mark.parametrize(("dtype", "rate"), [(torch.bfloat16, 5e-7), (torch.bfloat16, 1e-3)])
def test_the_share_is_that_of_the_weights_that_adam_leaves(
    trainer: Trainer, dtype: torch.dtype, rate: float
) -> None:
    run = trainer(tiny_model(dtype=dtype), learning_rate=rate, **ADAM)
    expected = unmoved_share(run.model, rate)
    before = [weight.detach().clone() for weight in run.model.parameters()]
    run.train()
    pairs = list(zip(before, run.model.parameters(), strict=True))
    still = sum(int((one == other).sum()) for one, other in pairs)
    assert still / sum(one.numel() for one in before) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"learning_rate": 5e-7}, True),
        ({"learning_rate": 0.1}, False),
        ({"learning_rate": 5e-7, "optim": "sgd"}, False),  # its steps have the gradient's size
    ],
)
def test_steps_that_are_rounded_away_are_told(
    trainer: Trainer, caplog: pytest.LogCaptureFixture, options: dict[str, Any], told: bool
) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            trainer(tiny_model(dtype=dtype), **{**ADAM, **options})
        assert ("would stay as they are" in caplog.text) == (told and dtype == torch.bfloat16)
