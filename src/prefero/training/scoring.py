"""From a collated row to the batch that an objective reads: all models that it names, scored or looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from prefero.data.schema import SCHEMA
from prefero.kinds.kind import Kind
from prefero.objectives.batch import PreferenceBatch, Signal, TokenLogps
from prefero.objectives.needs import Needs, Sizes, compared_models, signals_of, trailing_sizes
from prefero.reference.providers import Provider

MAIN = ""
"""The view that is the examples themselves."""


class Scorer:
    """Scores rows, as the kind of model is scored, with the policy and with the ``providers`` of the other
    models that ``needs`` names.

    Models for which a row carries cached log-probabilities are not run.
    """

    def __init__(
        self,
        kind: Kind,
        needs: Needs,
        providers: Mapping[str, Provider],
        *,
        sizes: Callable[[str], Sizes] = lambda model: {"hidden": 1, "layer": 1},
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """``sizes`` says how wide and how many the states of a model are, by its name; ``around`` is entered
        where another model is scored (the policy's mixed precision)."""
        self.kind, self.needs, self.providers = kind, needs, providers
        self.sizes, self.around = sizes, around

    def __call__(
        self,
        policy: nn.Module,
        row: Mapping[str, Any],
        *,
        extra: Iterable[Signal] = (),
        progress: float = 0.0,
    ) -> PreferenceBatch:
        """``extra`` signals of the policy are measured besides those that the objective needs."""
        inputs = row["inputs"]
        scored = {}
        for name, provider in self.providers.items():
            with self.around():
                scored[name] = provider.score(inputs, signals_of(self.needs, name))
        others = {name: self.providers[name].model for name in compared_models(self.needs)}
        wanted = signals_of(self.needs, "policy") | frozenset(extra)
        scored["policy"] = self.kind.score(policy, inputs, wanted, others=others)
        return self._batch(row, scored, progress)

    def blank(self, row: Mapping[str, Any]) -> PreferenceBatch:
        """The batch with every log-probability 0: enough to count what an objective averages over."""
        masks = self.kind.masks(row["inputs"])
        scored = {
            name: {view: self._zeros(mask, name) for view, mask in masks.items()}
            for name in {"policy", *self.providers}
        }
        return self._batch(row, scored, 0.0)

    def _batch(
        self, row: Mapping[str, Any], scored: Mapping[str, Mapping[str, TokenLogps]], progress: float
    ) -> PreferenceBatch:
        columns: Mapping[str, Tensor] = row["columns"]
        views = {
            view: PreferenceBatch(
                models=self._models(row, scored, view),
                columns=self._columns_of(needs.roles, columns),
                roles=needs.roles,
                progress=progress,
            )
            for view, needs in self.needs.views.items()
        }
        models = self._models(row, scored, MAIN)
        return PreferenceBatch(models, columns, self.needs.roles, views, progress)

    def _columns_of(self, roles: Sequence[str], columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a view sees of the columns: those of its responses, and none of tokens, which are those of the
        examples themselves."""
        places = [self.needs.roles.index(role) for role in roles]
        return {
            name: values[:, places] if roles and SCHEMA[name].axes == "example response" else values
            for name, values in columns.items()
            if not SCHEMA[name].axes.endswith("token")
        }

    def _models(
        self, row: Mapping[str, Any], scored: Mapping[str, Mapping[str, TokenLogps]], view: str
    ) -> dict[str, TokenLogps]:
        models = {name: by_view[view] for name, by_view in scored.items()}
        policy = models["policy"]
        for name, by_view in row["cached"].items():
            models[name] = TokenLogps(by_view[view].to(policy.logps.dtype), policy.mask)
        return models

    def _zeros(self, mask: Tensor, model: str) -> TokenLogps:
        zeros = mask.new_zeros(mask.shape, dtype=torch.float32)
        signals = {}
        for signal in signals_of(self.needs, model):
            shape = mask.shape[: len(signal.axes.split())]
            signals[signal] = zeros.new_zeros((*shape, *trailing_sizes(signal, self.sizes(model))))
        return TokenLogps(zeros, mask, signals)


def detached(batch: PreferenceBatch) -> PreferenceBatch:
    """The same numbers without a graph behind them."""

    def of(logps: TokenLogps) -> TokenLogps:
        signals = {signal: values.detach() for signal, values in logps.signals.items()}
        return TokenLogps(logps.logps.detach(), logps.mask, signals)

    return replace(
        batch,
        models={name: of(logps) for name, logps in batch.models.items()},
        views={view: detached(inner) for view, inner in batch.views.items()},
    )
