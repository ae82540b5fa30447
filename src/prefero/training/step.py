"""From a collated row to the batch that an objective reads: all models that it names, scored or looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prefero.data.schema import SCHEMA
from prefero.models.kind import Kind
from prefero.objectives.batch import PreferenceBatch, Signal, TokenLogps
from prefero.objectives.compare import Objective
from prefero.objectives.needs import Needs, Sizes, compared_models, signals_of, trailing_sizes
from prefero.reference.providers import Provider
from prefero.training.batches import joined, taken

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


Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ranks:
    """The processes that share an optimizer step. ``gather`` joins every rank's list, in rank order."""

    count: int
    sum: Callable[[Tensor], Tensor]
    gather: Callable[[list[Any]], list[Any]]
    device: torch.device


@dataclass(frozen=True)
class Share:
    """What one row contributes to an optimizer step.

    ``loss`` has the gradient of the row's share of the step's loss, times the number of ranks (gradients are
    averaged over them); its values add up, over rows, to the step's loss on the average over ranks. ``terms``
    are the total and the count of each term, as far as they were seen with this row.
    """

    loss: Tensor
    batch: PreferenceBatch
    terms: Sequence[tuple[Tensor, Tensor]]


class UpdateRule(Protocol):
    """Turns the rows of an optimizer step into gradients.

    ``begin`` sees all rows of this rank before the first of them is scored; ``share`` is then called for each
    in turn.
    """

    def begin(self, rows: Sequence[Row]) -> None: ...

    def share(self, policy: nn.Module, row: Row, extra: frozenset[Signal], progress: float) -> Share: ...


class BackwardAndStep:
    """Each row alone, for objectives that are sums over examples.

    Every term is divided by its count over all rows and ranks of the step, which is known before anything is
    scored.
    """

    def __init__(self, objective: Objective, scorer: Scorer, ranks: Ranks) -> None:
        self.objective, self.scorer, self.ranks = objective, scorer, ranks
        self.counts = torch.zeros(0)

    def begin(self, rows: Sequence[Row]) -> None:
        counts = [torch.stack(self.objective.counts(self.scorer.blank(row))) * row["weight"] for row in rows]
        self.counts = self.ranks.sum(torch.stack(counts).sum(0).to(self.ranks.device)).clamp(min=1)

    def share(self, policy: nn.Module, row: Row, extra: frozenset[Signal], progress: float) -> Share:
        batch = self.scorer(policy, row, extra=extra, progress=progress)
        weight = row["weight"]
        terms = [(term.total * weight, term.count * weight) for term in self.objective(batch)]
        loss = sum(
            (total / count for (total, _), count in zip(terms, self.counts, strict=True)),
            batch.lengths.new_zeros(()),
        )
        return Share(loss * self.ranks.count, batch, terms)


class WholeStep:
    """All rows of all ranks as one batch, for objectives that are no sum over examples. Exact.

    Every row is scored without a graph, the loss of the joined batch gives the gradient with respect to every
    token's log-probability, and each row is then scored again and takes its part of it backward. That is
    possible for every objective, because an objective sees nothing else of the model. A single row on a
    single rank is its own whole step and is scored once.
    """

    def __init__(self, objective: Objective, scorer: Scorer, ranks: Ranks) -> None:
        self.objective, self.scorer, self.ranks = objective, scorer, ranks
        self._rows: Sequence[Row] = ()
        self._next = 0
        self._pulls: list[list[_Pull]] = []
        self._states: list[dict[str, Tensor]] = []
        self._loss = torch.zeros(())
        self._own: list[tuple[Tensor, Tensor]] = []
        self._terms: list[tuple[Tensor, Tensor]] = []

    def begin(self, rows: Sequence[Row]) -> None:
        self._rows, self._next = rows, 0

    def share(self, policy: nn.Module, row: Row, extra: frozenset[Signal], progress: float) -> Share:
        if len(self._rows) == 1 and self.ranks.count == 1:
            batch = self.scorer(policy, row, extra=extra, progress=progress)
            return Share(self._whole_loss(batch), batch, self._terms)
        if self._next == 0:
            self._look_ahead(policy, progress)
        number, self._next = self._next, self._next + 1
        _set_random_state(self._states[number])
        batch = self.scorer(policy, row, extra=extra, progress=progress)
        pull = sum(
            (_pull(part, batch) for part in self._pulls[number]), batch.models["policy"].logps.sum() * 0.0
        )
        pull = pull * self.ranks.count
        reported = torch.zeros_like(self._loss)
        if number == 0:
            # what the objective learns: every rank has its whole gradient
            pull = pull + sum(((weight * slope).sum() for weight, slope in self._own), 0.0)
            reported = self._loss
        return Share(pull + (reported - pull.detach()), batch, self._terms if number == 0 else ())

    def _whole_loss(self, batch: PreferenceBatch) -> Tensor:
        terms = self.objective(batch)
        self._terms = [(term.total.detach(), term.count) for term in terms]
        return sum((term.total / term.count.clamp(min=1) for term in terms), batch.lengths.new_zeros(()))

    def _look_ahead(self, policy: nn.Module, progress: float) -> None:
        """The loss of the whole step and, for each row of this rank, its gradient at what the policy gave."""
        scored, self._states = [], []
        with torch.no_grad():
            for row in self._rows:
                self._states.append(_random_state(self.ranks.device))
                row = to_device(row, self.ranks.device)
                scored.append((self.scorer(policy, row, progress=progress), row["example"], row["weight"]))
        mine = list(to_device(scored, "cpu"))
        everyone = [part for part in self.ranks.gather(mine) if part[2] > 0]

        # In the order of the data set, so that neither the dealing nor the number of ranks shows.
        examples = torch.cat([example for _, example, _ in everyone])
        order = examples.argsort(stable=True)
        whole = to_device(taken(joined([batch for batch, _, _ in everyone]), order), self.ranks.device)
        whole, leaves = _with_leaves(whole)
        loss = self._whole_loss(whole)
        own = [weight for weight in self.objective.parameters() if weight.requires_grad]
        slopes = torch.autograd.grad(loss, [*(leaf.tensor for leaf in leaves), *own], allow_unused=True)
        for leaf, slope in zip(leaves, slopes, strict=False):
            leaf.tensor.grad = slope
        found = zip(own, slopes[len(leaves) :], strict=True)
        self._own = [(weight, slope) for weight, slope in found if slope is not None]
        self._loss = loss.detach()
        place = {int(example): at for at, example in enumerate(examples[order])}
        self._pulls = [
            [
                leaf.of([place[int(example)] for example in example_ids], batch)
                for leaf in (leaves if weight > 0 else ())
            ]
            for batch, example_ids, weight in scored
        ]


@dataclass(frozen=True)
class _Pull:
    """The gradient at one tensor of the policy's: its log-probabilities (``signal`` None) or a signal."""

    view: str
    signal: Signal | None
    gradient: Tensor


@dataclass(frozen=True)
class _Leaf:
    view: str
    signal: Signal | None
    tensor: Tensor

    def of(self, places: list[int], batch: PreferenceBatch) -> _Pull:
        gradient = torch.zeros_like(self.tensor) if self.tensor.grad is None else self.tensor.grad
        shape = _value(batch, self.view, self.signal).shape
        return _Pull(self.view, self.signal, gradient[places][tuple(slice(size) for size in shape)])


def _value(batch: PreferenceBatch, view: str, signal: Signal | None) -> Tensor:
    policy = (batch.views[view] if view else batch).models["policy"]
    return policy.logps if signal is None else policy.signals[signal]


def _pull(pull: _Pull, batch: PreferenceBatch) -> Tensor:
    return (_value(batch, pull.view, pull.signal) * pull.gradient).sum()


def _with_leaves(batch: PreferenceBatch) -> tuple[PreferenceBatch, list[_Leaf]]:
    """The batch with everything of the policy's a leaf that wants a gradient, in all views."""
    leaves: list[_Leaf] = []

    def open_(inner: PreferenceBatch, view: str) -> PreferenceBatch:
        policy = inner.models["policy"]
        logps = policy.logps.detach().requires_grad_()
        signals = {signal: values.detach().requires_grad_() for signal, values in policy.signals.items()}
        leaves.append(_Leaf(view, None, logps))
        leaves.extend(_Leaf(view, signal, values) for signal, values in signals.items())
        return replace(inner, models={**inner.models, "policy": TokenLogps(logps, policy.mask, signals)})

    batch = detached(batch)
    views = {view: open_(inner, view) for view, inner in batch.views.items()}
    return replace(open_(batch, ""), views=views), leaves


def to_device(value: Any, device: torch.device | str) -> Any:
    """Tensors to a device, in whatever a row or a batch keeps them."""
    if isinstance(value, PreferenceBatch):
        return replace(
            value,
            models=to_device(value.models, device),
            columns=to_device(value.columns, device),
            views=to_device(value.views, device),
        )
    if isinstance(value, TokenLogps):
        return TokenLogps(*to_device([value.logps, value.mask, value.signals], device))
    if isinstance(value, Mapping):
        return {key: to_device(inner, device) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(to_device(inner, device) for inner in value)
    return value.to(device)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
