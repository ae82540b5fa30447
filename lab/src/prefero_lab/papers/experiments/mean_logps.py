"""The experiment on text worlds for methods whose reward is the mean log-probability of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.experiments.ranking import cells
from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn

    from prefero.data.trie import Cell
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class MeanLogps(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` that also measures mean log-probabilities per token
    of training pairs: ``chosen_mean``, ``rejected_mean``, their ``margin``, and ``active``, whether that is
    less than ``threshold``.

    With ``until`` every arm is trained, at a constant step size, until the margin has grown by so much over
    the start model's (or the epochs are over), looked at every few optimizer steps on some of the pairs.
    """

    until: float | None = None
    threshold: float = 0.4

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        if self.until is None:
            return super().train(made, settings, seed)
        pairs = cells(made, made.rows[:128])
        stop = at_margin(pairs, mean_margin(made.start.model, pairs) + self.until)
        return super().train(made, {"lr_scheduler_type": "constant", **settings, "callbacks": [stop]}, seed)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread
        from prefero.evaluate.ranking import pair_logps

        with one_thread():
            logps = pair_logps(model, cells(made, made.rows[: self.prompts]))
        margin = logps.margin(per_token=True)
        return {
            **super().measure(made, model, seed),
            "chosen_mean": (logps.chosen / logps.chosen_length).tolist(),
            "rejected_mean": (logps.rejected / logps.rejected_length).tolist(),
            "margin": margin.tolist(),
            "active": (margin < self.threshold).double().tolist(),
        }


def mean_margin(model: nn.Module, pairs: Sequence[tuple[Cell, Cell]]) -> float:
    """Mean over pairs of the chosen minus the rejected mean log-probability per token, in nats."""
    from prefero.evaluate.ranking import pair_logps

    return float(pair_logps(model, pairs).margin(per_token=True).mean())


def at_margin(pairs: Sequence[tuple[Cell, Cell]], margin: float, every: int = 4) -> Any:
    """A callback that ends training once the mean margin of the pairs is reached."""
    from transformers import TrainerCallback

    class AtMargin(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            if state.global_step % every == 0 and mean_margin(given["model"], pairs) >= margin:
                control.should_training_stop = True

    return AtMargin()
