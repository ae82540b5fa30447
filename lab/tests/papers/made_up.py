"""Experiments that take no time: a model is a number, and training adds a gain to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper, Trained


@dataclass(frozen=True)
class MadeUp:
    """Held-out prompts have values of their own; a seed shifts what training gains by noise of ``spread``."""

    spread: float = 0.05
    prompts: int = 50
    calls: list[tuple[Any, ...]] = field(default_factory=list, compare=False)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"spread": self.spread, "prompts": self.prompts}

    def make(self, seed: int) -> torch.Generator:
        self.calls.append(("make", seed))
        return torch.Generator().manual_seed(seed)

    def start(self, made: torch.Generator) -> float:
        return 0.0

    def train(self, made: torch.Generator, settings: Mapping[str, Any], seed: int) -> Trained[float]:
        self.calls.append(("train", settings["gain"], seed))
        if settings.get("interrupt") == seed:
            raise KeyboardInterrupt
        noise = torch.randn((), generator=torch.Generator().manual_seed(seed)).item()
        gain = settings["gain"] * (1 + self.spread * noise)
        return Trained(gain, {"loss": [(1.0, 1.0), (2.0, 1.0 - gain)]})

    def measure(self, made: torch.Generator, model: float, seed: int) -> Mapping[str, Sequence[float]]:
        prompts = torch.randn(self.prompts, generator=torch.Generator().manual_seed(seed))
        return {"gold": (prompts + model).tolist(), "kl": [abs(model)]}


def paper(*expected: Expectation, experiment: Any = None, key: str = "made_up", **arms: Any) -> Paper:
    """A paper with a claim about ``better``, which gains 1, and ``worse``, which gains 0.5."""
    settings = {"better": {"gain": 1.0}, "worse": {"gain": 0.5}} | arms
    claim = Claim(
        statement="training gains",
        experiment=experiment or MadeUp(),
        arms=(START, *(Arm(name, value) for name, value in settings.items())),
        expected=expected or (Expectation("better", "worse", "gold"),),
        refuted_by="no gain",
        seconds=1,
    )
    return Paper("p000", "A <paper>", "Nobody, 2020", "nothing", (claim,), key=key, area="nowhere")
