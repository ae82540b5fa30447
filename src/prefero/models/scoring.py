"""Many examples scored for looking at: without a gradient, in micro-batches of a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prefero.data.packing import next_fit
from prefero.data.trie import TokenExample, unique_tokens
from prefero.models.causal.scoring import Language
from prefero.models.encoder_decoder.kind import EncoderDecoder
from prefero.models.loading import evaluating, innermost
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
    """Score examples with a causal or an encoder–decoder language model in evaluation mode, the longest
    first. Yields, for each micro-batch, the indices of its examples and their numbers as the kind's ``score``
    gives them. The examples are tokenised already, so the kind's class does without a tokenizer."""
    kind: Any = EncoderDecoder if innermost(model).config.is_encoder_decoder else Language
    sizes = [unique_tokens(example.all_cells) for example in examples]
    order = sorted(range(len(examples)), key=lambda i: (-sizes[i], i))
    device = next(model.parameters()).device
    with evaluating(model):
        for members in next_fit(order, sizes, tokens_per_row):
            inputs = kind.collate([examples[i] for i in members]).to(device)
            with torch.no_grad():
                scored = kind.score(model, inputs, signals, others=others)[""]
            yield members, scored
