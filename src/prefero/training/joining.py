"""Several batches as one, filled up to the largest: what an objective sees that needs the whole step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prefero.data.schema import SCHEMA
from prefero.objectives.batch import PreferenceBatch, TokenLogps

_FILL = {"float": float("nan"), "int": -1, "bool": False}


def joined(batches: Sequence[PreferenceBatch]) -> PreferenceBatch:
    """The examples of all batches, one after the other. Gradients flow back to each."""
    first = batches[0]
    responses = max(batch.mask.shape[1] for batch in batches)
    return PreferenceBatch(
        models={name: _joined_logps([b.models[name] for b in batches], responses) for name in first.models},
        columns={name: _joined_column(name, [b.columns[name] for b in batches]) for name in first.columns},
        roles=first.roles,
        views={view: joined([b.views[view] for b in batches]) for view in first.views},
        progress=first.progress,
    )


def taken(batch: PreferenceBatch, examples: Tensor) -> PreferenceBatch:
    """Some of a batch's examples, in the order given."""

    def of(logps: TokenLogps) -> TokenLogps:
        signals = {signal: values[examples] for signal, values in logps.signals.items()}
        return TokenLogps(logps.logps[examples], logps.mask[examples], signals)

    return PreferenceBatch(
        models={name: of(logps) for name, logps in batch.models.items()},
        columns={name: values[examples] for name, values in batch.columns.items()},
        roles=batch.roles,
        views={view: taken(inner, examples) for view, inner in batch.views.items()},
        progress=batch.progress,
    )


def _joined_logps(parts: Sequence[TokenLogps], responses: int) -> TokenLogps:
    tokens = max(part.mask.shape[2] for part in parts)

    def of(values: Sequence[Tensor], per_token: bool) -> Tensor:
        return torch.cat([_filled(value, responses, tokens if per_token else None, 0) for value in values])

    signals: Mapping = {
        signal: of([part.signals[signal] for part in parts], signal.axes == "example response token")
        for signal in parts[0].signals
    }
    return TokenLogps(
        of([part.logps for part in parts], True), of([part.mask for part in parts], True), signals
    )


def _joined_column(name: str, parts: Sequence[Tensor]) -> Tensor:
    spec = SCHEMA[name]
    if not spec.axes.startswith("example response"):
        return torch.cat(list(parts))
    per_token = spec.axes.endswith("token")
    responses = max(part.shape[1] for part in parts)
    tokens = max(part.shape[2] for part in parts) if per_token else None
    return torch.cat(
        [_filled(part, responses, tokens, 0 if per_token else _FILL[spec.dtype]) for part in parts]
    )


def _filled(values: Tensor, responses: int, tokens: int | None, fill: float) -> Tensor:
    """``values`` [example response token …] widened to that many responses, and tokens unless None."""
    widen = [0, 0] * (values.dim() - 3) if values.dim() > 2 else []
    if values.dim() > 2:
        widen += [0, 0 if tokens is None else tokens - values.shape[2]]
    widen += [0, responses - values.shape[1]]
    return F.pad(values, widen, value=fill) if any(widen) else values
