"""The experiment on over-optimisation: long runs that are looked at on the way, and rules that pick a
checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn

    from prefero_lab.papers.paper import Trained

FLAGS = ("entropy_collapse", "mass_collapse")
"""The monitors of what the paper watches."""


@dataclass(frozen=True)
class Checkpoint:
    """A policy after so many steps: gold of its samples, one number a held-out prompt, and of held-out pairs
    the chosen responses' ``likelihood``, a mean over tokens in nats, and the reward ``margin``."""

    step: int
    gold: Sequence[float]
    valid: float
    kl: float
    likelihood: float
    margin: float

    @property
    def choosing(self) -> float:
        """The mean gold of the half of the prompts that rules may look at."""
        return fmean(self.gold[::2])

    @property
    def judging(self) -> Sequence[float]:
        return self.gold[1::2]


@dataclass(frozen=True)
class Run:
    """A run's checkpoints in their order, and the steps at which monitors fired, by their names."""

    checkpoints: Sequence[Checkpoint]
    flags: Mapping[str, int]

    @property
    def flagged(self) -> Checkpoint:
        """The last checkpoint before the first flag (the first one, if there is none before it); the last of
        all without a flag."""
        first = min((self.flags[name] for name in FLAGS if name in self.flags), default=None)
        before = [one for one in self.checkpoints if first is None or one.step <= first]
        return before[-1] if before else self.checkpoints[0]


@dataclass(frozen=True)
class Runs(Made):
    """Runs that all arms share, and the start model as a checkpoint."""

    before: Checkpoint
    runs: Sequence[Run]


@dataclass(frozen=True)
class OverOptimisation(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` with a long DPO run for each of the ``betas``, which
    are part of what is made: arms are rules. Models are one checkpoint a run.

    An arm ``{"pick": …}`` takes of each run the ``last`` checkpoint, the one with the highest ``likelihood``
    or the largest ``margin``, that before a monitor's ``flag``, or the ``best`` by gold on half of the
    prompts. Measured on the other half, one number a prompt and run: ``gold_reward``; and for each run the
    ``step``, ``valid`` and ``kl``.

    An arm ``{"fit": degree}`` is a polynomial through the gold of all checkpoints over the likelihood of
    chosen responses. Measured: its ``fit_error``, the root mean square of what is left at each checkpoint by
    a fit to the others, and ``turns``, 1 if it has its maximum between them.
    """

    pairs: int = 512
    prompts: int = 192
    betas: tuple[float, ...] = (0.05, 0.3)
    learning_rate: float = 2e-3
    steps: int = 128
    every: int = 16

    def make(self, seed: int) -> Runs:
        from prefero.demo.start import one_thread
        from prefero_lab.papers.experiments.held_out_pairs import held_out_pairs

        made = super().make(seed)
        pairs = held_out_pairs(made)
        with one_thread():
            before = checkpoint(made, pairs, made.start.model, 0)
        runs = [self._run(made, pairs, beta, seed) for beta in self.betas]
        return Runs(made.start, made.rows, made.held_out, before, runs)

    def _run(self, made: Made, pairs: Any, beta: float, seed: int) -> Run:
        from transformers import TrainerCallback

        from prefero.training.monitors import Monitors
        from prefero.training.series import metric_names
        from prefero_lab.papers.training import trained

        every, monitors = self.every, Monitors()
        checkpoints: list[Checkpoint] = []
        flags: dict[str, int] = {}

        class Looking(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                for finding in monitors.observe({"step": state.global_step, **metric_names(logs or {})}):
                    flags[finding.monitor] = finding.step

            def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
                if state.global_step % every == 0:
                    checkpoints.append(checkpoint(made, pairs, model, state.global_step))

        trained(
            str(made.start.folder),
            made.rows,
            {"objective": {"method": "dpo", "beta": beta}, "learning_rate": self.learning_rate},
            seed=seed,
            max_steps=self.steps,
            examples_per_step=self.examples_per_step,
            lr_scheduler_type="constant",
            logging_steps=2,
            callbacks=[Looking()],
        )
        return Run(checkpoints, flags)

    def start(self, made: Runs) -> list[Checkpoint]:  # type: ignore[override]
        return [made.before for _ in made.runs]

    def train(self, made: Runs, settings: Mapping[str, Any], seed: int) -> Trained[Any]:  # type: ignore[override]
        from prefero_lab.papers.paper import Trained

        if "fit" in settings:
            return Trained(settings["fit"])
        return Trained([picked(run, settings["pick"]) for run in made.runs])

    def measure(self, made: Runs, model: list[Checkpoint] | int, seed: int) -> Mapping[str, Sequence[float]]:  # type: ignore[override]
        if isinstance(model, int):
            every = [made.before, *(one for run in made.runs for one in run.checkpoints)]
            return fit(model, [one.likelihood for one in every], [fmean(one.gold) for one in every])
        return {
            "gold_reward": [value for one in model for value in one.judging],
            "step": [float(one.step) for one in model],
            "valid": [one.valid for one in model],
            "kl": [one.kl for one in model],
        }


def checkpoint(made: Made, pairs: Any, model: nn.Module, step: int) -> Checkpoint:
    from prefero.evaluate.ranking import pair_logps

    outcome = made.held_out.measure(model)
    ours, start = (pair_logps(one, pairs) for one in (model, made.start.model))
    return Checkpoint(
        step,
        [made.held_out.gold(one) for one in outcome.samples],
        outcome.measures["valid"].value,
        outcome.kl.value,
        float((ours.chosen / ours.chosen_length).mean()),
        float((ours.margin() - start.margin()).mean()),
    )


def picked(run: Run, rule: str) -> Checkpoint:
    """The checkpoint of a run that a rule of :class:`OverOptimisation` takes."""
    if rule == "last":
        return run.checkpoints[-1]
    if rule == "flag":
        return run.flagged
    value = {"likelihood": "likelihood", "margin": "margin", "best": "choosing"}[rule]
    return max(run.checkpoints, key=lambda one: getattr(one, value))


def fit(degree: int, likelihood: Sequence[float], gold: Sequence[float]) -> dict[str, list[float]]:
    """A polynomial's error where it was not fitted, and whether it has a maximum inside."""
    import numpy as np

    from prefero_lab.papers.turning_point import turning_point

    x, y = np.array(likelihood) - fmean(likelihood), np.array(gold)
    errors = [
        np.polyval(np.polyfit(np.delete(x, one), np.delete(y, one), degree), x[one]) - y[one]
        for one in range(len(x))
    ]
    turns = degree == 2 and turning_point(likelihood, gold).at is not None
    return {"fit_error": [float(np.sqrt(np.mean(np.square(errors))))], "turns": [float(turns)]}
