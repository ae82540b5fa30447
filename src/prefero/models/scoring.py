"""Many examples scored by a language model, encoder–decoder or not, for looking at: without a gradient, in
rows of a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prefero.data.packing import next_fit, pack, unique_tokens
from prefero.data.trie import TokenExample
from prefero.models.causal import scoring as language
from prefero.models.encoder_decoder import scoring as encoder_decoder_rows
from prefero.models.encoder_decoder import scoring as seq2seq
from prefero.models.loading import innermost
from prefero.models.signals import SecondModel
from prefero.objectives.batch import Signal, TokenLogps


def scored_rows(
    model: nn.Module,
    examples: Sequence[TokenExample],
    signals: frozenset[Signal] = frozenset(),
    *,
    others: Mapping[str, nn.Module | SecondModel] | None = None,
    tokens_per_row: int = 4096,
) -> Iterator[tuple[list[int], TokenLogps]]:
    """The numbers of some examples, and what :func:`~prefero.models.causal.scoring.score` says of them, until
    all have had their turn, longest first.

    The model's mode is eval meanwhile, and then what it was.
    """
    sizes = [unique_tokens(example) for example in examples]
    order = sorted(range(len(examples)), key=lambda i: (-sizes[i], i))
    device = next(model.parameters()).device
    encodes = innermost(model).config.is_encoder_decoder
    arranged: Any = encoder_decoder_rows.arrange if encodes else pack
    score: Any = seq2seq.score if encodes else language.score
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        for row in next_fit(order, sizes, tokens_per_row):
            with torch.no_grad():
                scored = score(
                    model, arranged([examples[i] for i in row]).to(device), signals, others=others
                )[""]
            yield row, scored
    finally:
        for module in training:
            module.training = True
