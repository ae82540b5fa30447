"""The experiment on how the policy's own likelihood, not its reward, orders pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prefero.data.trie import Cell
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Ideal:
    """In place of a model: the optimum of DPO with this β, in closed form."""

    beta: float


@dataclass(frozen=True)
class Scored(Made):
    """What all arms share, and pairs with how sure annotators are of their order (the logit), and how much
    likelier the start model finds the chosen response: those trained on, and held-out ones."""

    training: list[tuple[Cell, Cell]]
    training_before: Tensor
    held_out_pairs: list[tuple[Cell, Cell]]
    sureness: Tensor
    before: Tensor


@dataclass(frozen=True)
class PolicyRankings(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` that measures rankings alone.

    An arm is settings of a training run, or ``{"ideal": β}``. Measured, one number a pair: ``held_out``,
    whether the better of the start model's two answers to a held-out prompt is at least as likely, and
    ``trained``, the same of pairs that were trained on, with ``trained_reward``, whether their log-ratio has
    the right order. In all: ``flipped``, the share of trained pairs in the wrong order before that are in the
    right one now, and ``easy_flipped``, how much larger it is in the half that was nearer to right than in
    the other. Of the optimum, only ``held_out``.
    """

    def make(self, seed: int) -> Scored:
        import torch

        from prefero.demo.start import one_thread
        from prefero.evaluate.ranking import pair_logps
        from prefero_lab.papers.experiments.held_out_pairs import held_out_pairs
        from prefero_lab.papers.experiments.ranking import cells

        made = super().make(seed)
        training, pairs = cells(made, made.rows[: self.prompts]), held_out_pairs(made)
        gold = [made.held_out.gold(one) for one in made.held_out.before]
        other = [made.held_out.gold(one) for one in made.held_out.opponent]
        gaps = [abs(a - b) for a, b in zip(gold, other, strict=True) if a != b]
        with one_thread():
            before = [pair_logps(made.start.model, some).margin() for some in (training, pairs)]
        scale = self.text_world.label_scale if self.label_scale is None else self.label_scale
        sureness = scale * torch.tensor(gaps, dtype=torch.float64)
        return Scored(made.start, made.rows, made.held_out, training, before[0], pairs, sureness, before[1])

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Any]:
        from prefero_lab.papers.paper import Trained

        if "ideal" in settings:
            return Trained(Ideal(settings["ideal"]))
        return super().train(made, settings, seed)

    def measure(self, made: Scored, model: nn.Module | Ideal, seed: int) -> Mapping[str, Sequence[float]]:  # type: ignore[override]
        from prefero.demo.start import one_thread
        from prefero.evaluate.ranking import ideal_margin, ordered, pair_logps

        if isinstance(model, Ideal):
            margin = ideal_margin(made.before, made.sureness.sigmoid(), model.beta)
            return {"held_out": ordered(margin).double().tolist()}
        with one_thread():
            ours = pair_logps(model, made.training).margin()
            held_out = pair_logps(model, made.held_out_pairs).margin()
        wrong = (~ordered(made.training_before)).nonzero()[:, 0]
        easy_first = wrong[made.training_before[wrong].argsort(descending=True)]
        flips = ordered(ours)[easy_first].double()
        half = len(flips) // 2
        return {
            "held_out": ordered(held_out).double().tolist(),
            "trained": ordered(ours).double().tolist(),
            "trained_reward": (ours > made.training_before).double().tolist(),
            "flipped": [float(flips.mean())],
            "easy_flipped": [float(flips[:half].mean() - flips[-half:].mean())],
        }
