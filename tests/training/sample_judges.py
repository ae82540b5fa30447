"""Judges for the tests of samples, by name."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def words(prompt: Any, response: str) -> float:
    """The number of words; draws from every global generator, as a careless judge may."""
    random.random(), np.random.rand(), torch.rand(3)
    return float(len(response.split()))


def longer(prompt: Any, first: str, second: str) -> float:
    return 0.5 if len(first) == len(second) else float(len(first) > len(second))


def nothing(prompt: Any, response: str) -> float:
    raise ValueError("no judge today")


calls: list[Sequence[str]] = []


def breaks_later(completions: Sequence[str]) -> list[float]:
    calls.append(completions)
    if len(calls) == 4:  # the trial, the answers from before twice, the first during training
        raise ValueError("out of quota")
    return [float(len(text)) for text in completions]
