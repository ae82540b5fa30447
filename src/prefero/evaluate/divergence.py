"""How far a policy has moved from another model, on what it writes itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from prefero.data.cells import Cell, TokenExample
from prefero.data.packing import next_fit, pack, unique_tokens
from prefero.errors import PreferoError
from prefero.evaluate.intervals import Mean, mean
from prefero.models.language import SecondModel, score
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
    sizes = [unique_tokens(example) for example in examples]
    order = sorted(range(len(examples)), key=lambda i: (-sizes[i], i))
    device = next(policy.parameters()).device
    found = [0.0] * len(examples)
    training = [module for module in policy.modules() if module.training]
    policy.eval()
    try:
        with torch.no_grad():
            for row in next_fit(order, sizes, tokens_per_row):
                forest = pack([examples[i] for i in row]).to(device)
                scored = score(policy, forest, frozenset({signal}), others={"reference": reference})[""]
                totals = scored.signals[signal].where(scored.mask, 0).double().sum((1, 2)).tolist()
                for i, total in zip(row, totals, strict=True):
                    found[i] = total
    finally:
        for module in training:
            module.training = True
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
