"""The fitness of an objective: the gold reward that training with it gains on a small world."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefero.demo.reviews import REVIEWS
from prefero.demo.start import Report, StartModel, one_thread, quiet
from prefero.demo.text import HeldOut, TextWorld
from prefero.errors import PreferoError
from prefero.reference.providers import ReferenceSpec
from prefero.storage import NotWrittenError
from prefero.training.trainer import PreferenceTrainer

MEASURES = ("gold_reward", "win_rate", "kl", "length", "valid")


@dataclass(frozen=True, slots=True)
class Score:
    """``fitness`` is what the search climbs; ``low`` to ``high`` its 95 % interval over prompts."""

    fitness: float
    low: float
    high: float
    measures: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {"interval": [self.low, self.high], **self.measures}


class Unfit(Exception):
    """The objective cannot be trained; the message is the reason."""


@dataclass(frozen=True)
class Draw:
    """Pairs to train on and prompts to be measured on."""

    rows: list[dict[str, Any]]
    held_out: HeldOut


class TextFitness:
    """The gold reward that a policy gains over the start model on held-out prompts of a text world.

    All objectives share the start model, pairs, optimizer settings, prompts and sampling noise. ``draw``
    names another set of pairs and prompts, to look once more at what was chosen on the first.
    """

    def __init__(
        self,
        folder: Path,
        *,
        world: TextWorld = REVIEWS,
        pairs: int = 1024,
        epochs: float = 2,
        prompts: int = 512,
        learning_rate: float = 5e-4,
        seed: int = 0,
        cache: Path | None = None,
        report: Report | None = None,
    ) -> None:
        self.folder, self.world, self.pairs, self.epochs = folder, world, pairs, epochs
        self.prompts, self.learning_rate, self.seed = prompts, learning_rate, seed
        self.cache, self.report = cache, report
        self._start: StartModel | None = None
        self._draws: dict[int, Draw] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that must stay the same throughout a search."""
        return {
            "world": self.world.name,
            "pairs": self.pairs,
            "epochs": self.epochs,
            "prompts": self.prompts,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
        }

    @property
    def start(self) -> StartModel:
        if self._start is None:
            self._start = self.world.start_model(self.cache, seed=self.seed, report=self.report)
        return self._start

    def draw(self, number: int) -> Draw:
        if number not in self._draws:
            seed = self.seed + 1000 * number
            rows = self.world.preference_pairs(self.start, self.pairs, seed)
            if not rows:
                raise PreferoError(
                    f"world {self.world.name}: {self.pairs} prompts gave no pair to train on; ask for more"
                )
            self._draws[number] = Draw(rows, HeldOut(self.world, self.start, prompts=self.prompts, seed=seed))
        return self._draws[number]

    def __call__(self, objective: Mapping[str, Any], draw: int = 0) -> Score:
        """Train by the objective and measure the policy. Raises :class:`Unfit` if training diverges."""
        with one_thread(), quiet():
            made = self.draw(draw)
            row = made.held_out.measure(self._trained(objective, made.rows, draw)).row()
        low, high = row["interval"]["gain"]
        if not math.isfinite(row["gain"]):
            raise Unfit("the gold reward is not a number")
        return Score(row["gain"], low, high, {name: row[name] for name in MEASURES if name in row})

    def _trained(
        self, objective: Mapping[str, Any], rows: list[dict[str, Any]], draw: int
    ) -> torch.nn.Module:
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        try:
            trainer = PreferenceTrainer(
                str(self.start.folder),
                rows,
                objective=objective,
                reference=ReferenceSpec(cache=self.folder / "references"),
                output_dir=str(run),
                num_train_epochs=self.epochs,
                learning_rate=self.learning_rate,
                lr_scheduler_type="linear",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                seed=self.seed + draw,
            )
            trainer.train()
        except NotWrittenError:
            raise
        except PreferoError as error:  # the objective does not go with the world, or its loss diverged
            raise Unfit(str(error)) from error
        finally:
            shutil.rmtree(run, ignore_errors=True)
        if not all(weight.isfinite().all() for weight in trainer.model.parameters()):
            raise Unfit("training left weights that are not finite")
        policy: torch.nn.Module = trainer.model.eval()
        return policy
