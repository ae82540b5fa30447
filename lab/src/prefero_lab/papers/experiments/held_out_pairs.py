"""The experiment on text worlds, where pairs are looked at token by token that no training saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prefero.data.trie import Cell
    from prefero_lab.papers.paper import Trained

TAIL = 0.05
"""The share of the start model's next-token probability that is its tail."""


@dataclass(frozen=True)
class HeldOutPairs(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` that also measures held-out pairs:
    the start model's two answers to a prompt, the better one by gold for the chosen one; ties are left out.

    Of each response, ``chosen_divergence`` and so on for both: the ``divergence`` KL(start ‖ policy) summed
    over its tokens, in nats; and the ``tail``, what log start/policy is on average in the worst twentieth of
    the start model's next-token probability, the mean over its tokens. Of each pair: ``divergence_gap``, the
    rejected response's less the chosen one's, and in ``reviews`` the ``deciding_share``, how much of
    Σ_t |log π/π_start| is at words that decide about gold. One number in all: ``per_token``, how the gap of
    the two log-ratios grows with that of the lengths, in nats a token (least squares), and
    ``length_reliance``, the same without its sign. And of each training pair ``ranked``, whether the chosen
    response has the higher log-ratio.

    An arm may have a ``guide``: settings of a run before it, whose policy becomes the model of that name.
    """

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        if "guide" not in settings:
            return super().train(made, settings, seed)
        own = {name: value for name, value in settings.items() if name != "guide"}
        guide: Any = super().train(made, settings["guide"], seed).model
        with TemporaryDirectory(prefix="prefero-") as folder:
            guide.save_pretrained(folder)
            made.start.tokenizer.save_pretrained(folder)
            return super().train(made, {**own, "models": {"guide": folder}}, seed)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread

        found = dict(super().measure(made, model, seed))
        sides = zip(found["chosen_log_ratio"], found["rejected_log_ratio"], strict=True)
        found["ranked"] = [float(chosen > rejected) for chosen, rejected in sides]
        with one_thread():
            return {**found, **self._pairs(made, model)}

    def _pairs(self, made: Made, model: nn.Module) -> dict[str, list[float]]:
        import numpy as np
        import torch

        from prefero.data.trie import TokenExample
        from prefero.models.scoring import scored_rows
        from prefero.objectives.signals import forward_kl, nested_risk

        words = made.start.tokenizer.convert_tokens_to_ids(deciding_words())
        examples = [TokenExample(pair, {}, i) for i, pair in enumerate(held_out_pairs(made))]
        kl, risk = forward_kl(), nested_risk("cvar", tail=TAIL)
        models = {"reference": made.start.model}
        after = scored_rows(model, examples, frozenset({kl, risk}), others=models)
        before = scored_rows(made.start.model, examples)
        rows: list[int] = []
        numbers: list[Tensor] = []
        for (row, ours), (_, theirs) in zip(after, before, strict=True):
            there = ours.mask
            ratio = (ours.logps - theirs.logps).where(there, 0).double()
            decides = torch.zeros_like(there)
            for place, i in enumerate(row):
                for side, cell in enumerate(examples[i].cells):
                    here = torch.from_numpy(np.isin(cell.response, words))
                    decides[place, side, : len(cell.response)] = here
            columns = (
                ours.signals[kl].where(there, 0).sum(-1),
                ours.signals[risk].where(there, 0).sum(-1) / there.sum(-1),
                ratio.sum(-1),
                there.sum(-1),
                ratio.abs().sum(-1),
                ratio.abs().where(decides, 0).sum(-1),
            )
            numbers.append(torch.stack([one.double() for one in columns], -1))
            rows.extend(row)
        in_order = torch.cat(numbers)[torch.tensor(rows).argsort()]
        divergence, tail, ratios, lengths, total, deciding = in_order.unbind(-1)
        slope = per_token(ratios[:, 0] - ratios[:, 1], lengths[:, 0] - lengths[:, 1])
        measured = {
            "chosen_divergence": divergence[:, 0],
            "rejected_divergence": divergence[:, 1],
            "chosen_tail": tail[:, 0],
            "rejected_tail": tail[:, 1],
            "divergence_gap": divergence[:, 1] - divergence[:, 0],
            "per_token": slope[None],
            "length_reliance": slope.abs()[None],
        }
        if self.world == "reviews":
            measured["deciding_share"] = (deciding.sum(-1) / total.sum(-1)).nan_to_num(0)
        return {name: values.tolist() for name, values in measured.items()}


def deciding_words() -> list[str]:
    """The words of a review that its worth is read from."""
    from prefero.demo.reviews import CLOSINGS, HEDGES, SIGN, STRONG

    return sorted({*SIGN, *CLOSINGS, *STRONG, *HEDGES, "not", "but"})


def held_out_pairs(made: Made) -> list[tuple[Cell, Cell]]:
    """The start model's two answers to each held-out prompt, the better one by gold first."""
    pairs = []
    for one, other in zip(made.held_out.before, made.held_out.opponent, strict=True):
        gap = made.held_out.gold(one) - made.held_out.gold(other)
        if gap:
            pairs.append((one.cell, other.cell) if gap > 0 else (other.cell, one.cell))
    return pairs


def per_token(gaps: Tensor, lengths: Tensor) -> Tensor:
    """The slope of the least-squares line, with an intercept, of gaps over differences in length."""
    centred = lengths - lengths.mean()
    return (centred * gaps).sum() / centred.square().sum().clamp(min=1e-12)
