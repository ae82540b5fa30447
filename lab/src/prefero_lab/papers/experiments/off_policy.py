"""The experiment on text worlds with pairs most of which another policy wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class OffPolicy(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` where a share ``off`` of the pairs are of the start
    model's samples at a higher ``temperature``, and the rest of its own; rows tell which (``own``).

    Also measured, one number a pair: ``own_weight``, WPO's weight under the policy of pairs of the start
    model's own, and ``other_weight``, that of the others.
    """

    off: float = 0.75
    temperature: float = 1.5

    def make(self, seed: int) -> Made:
        from prefero.demo.start import one_thread
        from prefero.demo.text import stream
        from prefero.feedback.judges import score_all
        from prefero.feedback.pairing import bradley_terry_pairs
        from prefero.generate.sampling import sample

        made, world, numbers = super().make(seed), self.text_world, stream(self.world, "off-policy", seed)
        own = made.rows[round(self.off * len(made.rows)) :]
        with one_thread():
            samples = sample(
                made.start.model,
                made.start.tokenizer,
                [row["prompt"] for row in made.rows[: len(made.rows) - len(own)]],
                count=2,
                max_new_tokens=world.max_new_tokens,
                temperature=self.temperature,
                generator=numbers,
                batch_size=1024,
            )
        scale = world.label_scale if self.label_scale is None else self.label_scale
        others = bradley_terry_pairs(
            score_all(world.judge(self.taste), samples), scale=scale, generator=numbers
        )
        rows = [{**row, "own": False} for row in others if row["chosen"] and row["rejected"]]
        return replace(made, rows=[*rows, *({**row, "own": True} for row in own)])

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread

        found = dict(super().measure(made, model, seed))
        with one_thread():
            for name, own in (("own_weight", True), ("other_weight", False)):
                found[name] = weights(made, [row for row in made.rows if row["own"] == own][:200], model)
        return found


def weights(made: Made, rows: Sequence[Mapping[str, Any]], model: nn.Module) -> list[float]:
    """WPO's weight of each pair."""
    import torch

    from prefero.data.trie import TokenExample
    from prefero.models.scoring import scored_rows
    from prefero.objectives.batch import PreferenceBatch
    from prefero.objectives.signals import LOG_SUM_P_SQUARED
    from prefero.objectives.slots import on_policy_likelihood
    from prefero_lab.papers.experiments.ranking import cells

    examples = [TokenExample(pair, {}, i) for i, pair in enumerate(cells(made, rows))]
    found, likelihood = torch.zeros(len(examples)), on_policy_likelihood()
    for row, scored in scored_rows(model, examples, frozenset({LOG_SUM_P_SQUARED})):
        found[row] = likelihood(PreferenceBatch({"policy": scored})).sum(-1).exp().clamp(max=1)
    return found.tolist()
