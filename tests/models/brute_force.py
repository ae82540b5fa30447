"""Each response alone through the model's own forward, all logits at hand: what scoring must agree with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefero.data.trie import Cell, TokenExample

VOCABULARY = 67


def examples(*shapes: tuple[int, tuple[int, ...]], seed: int = 3) -> list[TokenExample]:
    """One example for each (prompt length, response lengths)."""
    generator = np.random.default_rng(seed)

    def text(length: int) -> np.ndarray:
        return generator.integers(3, VOCABULARY, length)

    found = []
    for index, (prompt, responses) in enumerate(shapes):
        context = text(prompt)
        found.append(TokenExample(tuple(Cell(context, text(n)) for n in responses), {}, index))
    return found


PAIRS = ((9, (12, 5)), (4, (1, 9)), (7, (6, 6)))
"""Chains longer than the windows of the small models; a response of one token; siblings of unequal length."""


def cell_logps(model: PreTrainedModel, cell: Cell) -> Tensor:
    """Log-softmax rows [token, vocabulary] that score the response's tokens."""
    ids = torch.from_numpy(np.concatenate((cell.context, cell.response)))[None]
    logits = model(input_ids=ids, use_cache=False).logits[0]
    start = len(cell.context) - 1
    return logits[start : start + len(cell.response)].log_softmax(-1)


def padded_stack(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Ragged [example][response] tensors of tokens as one, 0 where there is nothing."""
    longest = max(len(tokens) for responses in rows for tokens in responses)
    return torch.stack(
        [
            torch.stack([torch.nn.functional.pad(t, (0, longest - len(t))) for t in responses])
            for responses in rows
        ]
    )


def token_logps(model: PreTrainedModel, batch: Sequence[TokenExample]) -> Tensor:
    """Log-probabilities [example, response, token] of the examples' responses."""
    return padded_stack(
        [
            [
                cell_logps(model, cell).gather(1, torch.from_numpy(cell.response)[:, None])[:, 0]
                for cell in example.cells
            ]
            for example in batch
        ]
    )


def weights_like(tensor: Tensor) -> Tensor:
    """Fixed random numbers, so that a gradient of the weighted sum tells all entries apart."""
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0), dtype=tensor.dtype)


def gradients(model: torch.nn.Module, loss: Tensor) -> Tensor:
    """All parameters' gradients in one vector, 0 where there is none."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    )


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def rate_score(conditional: Tensor, rates: Tensor) -> Tensor:
    """Σ_j [q(j) log R(j) − R(j)] over the states j other than the present one, for any chain.

    ``conditional`` are the rates q that the data give, which may be 0; ``rates`` are a model's, above 0 where
    those are. It is largest at R = q; the difference of two models is D of D2-DPO.
    """
    jumps = conditional > 0
    logs = torch.where(jumps, rates, 1).log()
    return (torch.where(jumps, conditional * logs, 0) - rates).sum(-1)
