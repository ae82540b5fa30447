"""Batches out of the ragged token numbers that golden vectors hold, and gradients back into that form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prefero.objectives import Objective, PreferenceBatch, Signal, TokenLogps

Ragged = Sequence[Sequence[Sequence[float]]]
"""[example][response][token], every level as long as it happens to be."""


def sides(inputs: Mapping[str, Any], prefix: str, roles: Sequence[str] = ("chosen", "rejected")) -> Ragged:
    """``inputs["policy_chosen"]`` and ``inputs["policy_rejected"]`` as the responses of each example."""
    return list(zip(*(inputs[f"{prefix}_{role}"] for role in roles), strict=True))


def padded(ragged: Ragged, beyond: float = 0.0, tokens: int = 0) -> tuple[Tensor, Tensor]:
    """The numbers and their mask, ``[example response token]``, with ``tokens`` at least."""
    responses = max(len(example) for example in ragged)
    tokens = max(tokens, *(len(response) for example in ragged for response in example))
    values = torch.full((len(ragged), responses, tokens), beyond, dtype=torch.float64)
    mask = torch.zeros(values.shape, dtype=torch.bool)
    for e, example in enumerate(ragged):
        for r, response in enumerate(example):
            values[e, r, : len(response)] = torch.tensor(response, dtype=torch.float64)
            mask[e, r, : len(response)] = True
    return values, mask


def batch_of(
    models: Mapping[str, Ragged],
    columns: Mapping[str, Any] | None = None,
    roles: tuple[str, ...] = ("chosen", "rejected"),
    signals: Mapping[Signal, Ragged] | None = None,
) -> PreferenceBatch:
    """A batch whose policy log-probabilities are a leaf that wants a gradient; ``signals`` are the
    policy's."""
    longest = max(len(response) for ragged in models.values() for example in ragged for response in example)
    scored = {name: TokenLogps(*padded(ragged, tokens=longest)) for name, ragged in models.items()}
    measured = {signal: padded(ragged, tokens=longest)[0] for signal, ragged in (signals or {}).items()}
    policy = scored["policy"]
    scored["policy"] = TokenLogps(policy.logps.requires_grad_(), policy.mask, measured)
    tensors = {name: torch.as_tensor(values) for name, values in (columns or {}).items()}
    return PreferenceBatch(scored, tensors, roles)


def pairs(inputs: Mapping[str, Any], **options: Any) -> PreferenceBatch:
    """Policy and, where the vector has one, reference on chosen and rejected responses."""
    models = [name for name in ("policy", "reference") if f"{name}_chosen" in inputs]
    return batch_of({name: sides(inputs, name) for name in models}, **options)


def scores(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    both = [inputs["score_chosen"], inputs["score_rejected"]]
    return {"score": torch.tensor(both, dtype=torch.float64).T}


def values(objective: Objective, batch: PreferenceBatch) -> Tensor:
    """The only term's loss of every row, where a row has one comparison or they are summed."""
    (term,) = objective.double()(batch)
    assert term.values is not None
    return term.values


def ragged(values: Tensor, mask: Tensor) -> list[list[list[float]]]:
    return [
        [row[keep].tolist() for row, keep in zip(*example, strict=True) if keep.any()]
        for example in zip(values, mask, strict=True)
    ]


def gradient(objective: Objective, batch: PreferenceBatch) -> list[list[list[float]]]:
    """Of the objective's loss on the batch, ``[example][response][token]``."""
    logps = batch.models["policy"].logps
    (slope,) = torch.autograd.grad(objective.double().loss(batch), logps)
    return ragged(slope, batch.mask)


def gradients(objective: Objective, batch: PreferenceBatch, suffix: str = "") -> dict[str, list[list[float]]]:
    """The same by role, under the names that the vectors use."""
    by_role = zip(*gradient(objective, batch), strict=True)
    return {
        f"grad_policy_{role}{suffix}": list(side) for role, side in zip(batch.roles, by_role, strict=True)
    }


def loss_and_gradients(objective: Objective, batch: PreferenceBatch) -> dict[str, Any]:
    return {"loss": values(objective, batch), **gradients(objective, batch)}


def one(batch: PreferenceBatch, example: int) -> PreferenceBatch:
    """One example of a batch of lists, without its padding, to differentiate its own loss."""
    there = batch.mask[example].any(-1)

    def cut(scored: TokenLogps) -> TokenLogps:
        return TokenLogps(scored.logps[example, there][None], scored.mask[example, there][None])

    columns = {name: column[example, there][None] for name, column in batch.columns.items()}
    models = {name: cut(scored) for name, scored in batch.models.items()}
    policy = models["policy"]
    models["policy"] = TokenLogps(policy.logps.detach().requires_grad_(), policy.mask)
    return PreferenceBatch(models, columns, batch.roles)
