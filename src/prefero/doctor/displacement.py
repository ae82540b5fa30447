"""Which pairs make training lower the likelihood of the very responses it should raise, told by a model's
hidden states before training.

Razin et al., 2024, arXiv 2410.08847. The states are those that enter the language-model head: after the last
norm, at the positions that *predict* the response's tokens. The first belongs to the last token of the
prompt, and the one at the response's own last token is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.scoring import scored_rows
from prefero.objectives.signals import TOKEN_STATE


@dataclass(frozen=True, slots=True)
class Ches:
    """The centred hidden embedding similarity of each pair: the higher, the more displacement.

    ``score`` is ⟨H_w, H_l⟩ − ‖H_w‖² with H the sum of a response's states; ``normalised`` has means in place
    of sums. Filter by ``normalised``: the other grows with the length.
    """

    score: Float[Tensor, " pair"]
    normalised: Float[Tensor, " pair"]


def ches(
    chosen: Float[Tensor, "pair token hidden"],
    rejected: Float[Tensor, "pair token_ hidden"],
    chosen_mask: Bool[Tensor, "pair token"],
    rejected_mask: Bool[Tensor, "pair token_"],
) -> Ches:
    """CHES from the states that predict each response's tokens; what the masks leave out is not read."""
    both = (chosen, chosen_mask), (rejected, rejected_mask)
    totals = [torch.where(mask[..., None], states, 0).double().sum(1) for states, mask in both]
    return of_sums(totals[0], totals[1], chosen_mask.sum(1), rejected_mask.sum(1))


def of_sums(
    chosen: Float[Tensor, "pair hidden"],
    rejected: Float[Tensor, "pair hidden"],
    chosen_length: Tensor,
    rejected_length: Tensor,
) -> Ches:
    """CHES from the sums of the states and how many there are; a response without tokens has the mean 0."""

    def similarity(w: Tensor, other: Tensor) -> Tensor:
        return (w * other).sum(-1) - w.square().sum(-1)

    means = [
        total / length.clamp(min=1)[:, None]
        for total, length in ((chosen, chosen_length), (rejected, rejected_length))
    ]
    return Ches(similarity(chosen, rejected), similarity(*means))


def ches_of(model: nn.Module, pairs: Sequence[tuple[Cell, Cell]], *, tokens_per_row: int = 4096) -> Ches:
    """CHES of (chosen, rejected) pairs under a language model: the one that training starts from.

    Both responses of a pair go through the model together, without padding that could count.

    Raises:
        PreferoError: there are no pairs.
    """
    if not pairs:
        raise PreferoError("CHES needs at least one pair; got none")
    examples = [TokenExample(pair, {}, i) for i, pair in enumerate(pairs)]
    sums: list[Tensor] = [torch.empty(0)] * len(pairs)
    lengths: list[Tensor] = [torch.empty(0)] * len(pairs)
    rows = scored_rows(model, examples, frozenset({TOKEN_STATE}), tokens_per_row=tokens_per_row)
    for row, scored in rows:
        states = torch.where(scored.mask[..., None], scored.signals[TOKEN_STATE], 0).double().sum(2).cpu()
        for place, i in enumerate(row):
            sums[i], lengths[i] = states[place], scored.mask[place].sum(-1).cpu()
    total, length = torch.stack(sums), torch.stack(lengths)
    return of_sums(total[:, 0], total[:, 1], length[:, 0], length[:, 1])


def least_displacing(found: Ches, keep: int) -> list[int]:
    """The ``keep`` pairs with the lowest length-normalised score, in their order in the data.

    The paper keeps 5 % of the pairs; up to 15 % did as well. Kept pairs have distinct responses; that their
    chosen likelihood rises is not promised.

    Raises:
        PreferoError: there are fewer pairs, or nothing is to be kept.
    """
    if not 1 <= keep <= len(found.normalised):
        raise PreferoError(f"keep lies between 1 and the {len(found.normalised)} pairs there are, not {keep}")
    return sorted(found.normalised.argsort(stable=True)[:keep].tolist())


def displaced_towards(
    unembedding: Float[Tensor, "vocabulary hidden"], chosen: int, rejected: int
) -> Float[Tensor, " vocabulary"]:
    """⟨W_z, W_w − W_l⟩ for every token z: where the first step of a pair that differs in one token sends
    probability, up to a constant. The chosen token need not be the highest."""
    return unembedding @ (unembedding[chosen] - unembedding[rejected])
