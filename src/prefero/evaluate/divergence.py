"""KL divergence of a policy from another model, on the policy's own samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn

from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.evaluate.intervals import Mean, mean
from prefero.models.scoring import scored_rows
from prefero.models.signals import SecondModel
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

    On the policy's own samples at temperature 1 the mean is an unbiased estimate of the divergence over whole
    responses (chain rule), never negative, and varies much less than the log-ratio.
    """
    signal = Signal("reverse_kl", against="reference", options=(("detached", 1),))
    examples = [TokenExample((cell,), {}, i) for i, cell in enumerate(responses)]
    divergence_of = [0.0] * len(examples)
    rows = scored_rows(
        policy, examples, frozenset({signal}), others={"reference": reference}, tokens_per_row=tokens_per_row
    )
    for row, scored in rows:
        totals = scored.signals[signal].where(scored.mask, 0).double().sum((1, 2)).tolist()
        for i, total in zip(row, totals, strict=True):
            divergence_of[i] = total
    return divergence_of


def divergence(
    policy: nn.Module,
    reference: nn.Module | SecondModel,
    responses: Sequence[Cell],
    *,
    tokens_per_row: int = 4096,
    confidence: float = 0.95,
) -> Mean:
    """KL(policy ‖ reference) in nats per response, on ``responses`` of the policy (:func:`divergences`).

    Raises:
        PreferoError: there are fewer than two responses.
    """
    if len(responses) < 2:
        raise PreferoError(f"a divergence needs at least two responses; got {len(responses)}.")
    return mean(divergences(policy, reference, responses, tokens_per_row=tokens_per_row), confidence)


Estimator = Literal["log_ratio", "squared", "positive"]


def sampled_divergence(
    policy_logps: Sequence[float],
    reference_logps: Sequence[float],
    *,
    estimator: Estimator = "log_ratio",
    confidence: float = 0.95,
) -> Mean:
    """KL(policy ‖ reference) in nats per response, from both models' log-probabilities of the policy's own
    samples: where these are kept and the models are not (:func:`divergence` varies less).

    With r = log π − log π_ref, ``log_ratio`` averages r, unbiased but of either sign; ``positive`` e^{−r} − 1
    + r, unbiased and never negative, but dominated by single samples; ``squared`` r²/2, of low variance and
    biased. Schulman, 2020, "Approximating KL divergence" (its k1, k3 and k2).

    Raises:
        PreferoError: fewer than two responses, or different numbers of log-probabilities.
    """
    if len(policy_logps) != len(reference_logps) or len(policy_logps) < 2:
        raise PreferoError(
            f"a divergence needs both models' log-probabilities of at least two responses; got "
            f"{len(policy_logps)} and {len(reference_logps)}."
        )
    ratios = [ours - theirs for ours, theirs in zip(policy_logps, reference_logps, strict=True)]
    if estimator == "positive":
        values = [math.expm1(min(-ratio, 700.0)) + ratio for ratio in ratios]
    else:
        values = [ratio * ratio / 2 for ratio in ratios] if estimator == "squared" else ratios
    return mean(values, confidence)
