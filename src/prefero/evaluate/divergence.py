"""How far a policy has moved from another model, on what it writes itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from prefero.data.cells import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.evaluate.intervals import Mean, mean
from prefero.models.language import SecondModel
from prefero.models.scoring import scored_rows
from prefero.objectives.batch import Signal


def divergences(
    policy: nn.Module,
    reference: nn.Module | SecondModel,
    responses: Sequence[Cell],
    *,
    tokens_per_row: int = 4096,
) -> list[float]:
    """KL(policy ‖ reference) along each response, in nats: the divergence of the two next-token distributions
    over the whole vocabulary, summed over the tokens of the response.

    On the policy's own samples at temperature 1 the mean of these is an unbiased estimate of the divergence
    of the two distributions over whole responses (chain rule). Unlike the sampled log-ratio it is never
    negative, and varies much less. The policy's mode is eval meanwhile, and then what it was.
    """
    signal = Signal("reverse_kl", against="reference", options=(("detached", 1),))
    examples = [TokenExample((cell,), {}, i) for i, cell in enumerate(responses)]
    found = [0.0] * len(examples)
    rows = scored_rows(
        policy, examples, frozenset({signal}), others={"reference": reference}, tokens_per_row=tokens_per_row
    )
    for row, scored in rows:
        totals = scored.signals[signal].where(scored.mask, 0).double().sum((1, 2)).tolist()
        for i, total in zip(row, totals, strict=True):
            found[i] = total
    return found


def divergence(
    policy: nn.Module,
    reference: nn.Module | SecondModel,
    responses: Sequence[Cell],
    *,
    tokens_per_row: int = 4096,
    confidence: float = 0.95,
) -> Mean:
    """KL(policy ‖ reference) in nats a response, on ``responses`` of the policy (:func:`divergences`).

    Raises:
        PreferoError: there are fewer than two responses.
    """
    if len(responses) < 2:
        raise PreferoError(f"a divergence needs at least two responses; got {len(responses)}.")
    return mean(divergences(policy, reference, responses, tokens_per_row=tokens_per_row), confidence)
