"""From a micro-batch to a gradient: the models' scores, the objective's loss, and its share of the step.

A :class:`Scorer` turns a micro-batch into the batch that an objective reads: every model that it names,
scored or looked up. An :class:`UpdateRule` turns the micro-batches of an optimizer step into gradients, so
that the loss is a mean over the whole step, whatever the number of micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn

from prefero.data.schema import SCHEMA
from prefero.models.kind import Kind
from prefero.models.signals import ROUTER_LOSS
from prefero.objectives.batch import PreferenceBatch, Signal, TokenLogps
from prefero.objectives.compare import Objective
from prefero.objectives.needs import Needs, Sizes, compared_models, signals_of, trailing_sizes
from prefero.reference.providers import Provider
from prefero.training.batches import MicroBatch, joined, mapped

MAIN = ""
"""The view that is the examples themselves."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores micro-batches, as the kind of model is scored, with the policy and with the ``providers`` of the
    other models that ``needs`` names.

    Models for which a micro-batch carries cached log-probabilities are not run. ``sizes`` says how wide and
    how many the states of a model are, by its name; ``around`` is entered where another model is scored (the
    policy's mixed precision). ``balance`` is the coefficient of the policy's loss that balances experts.
    """

    kind: Kind
    needs: Needs
    providers: Mapping[str, Provider]
    sizes: Callable[[str], Sizes] = lambda model: {"hidden": 1, "layer": 1}
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    balance: float = 0.0

    def __call__(
        self,
        policy: nn.Module,
        batch: MicroBatch,
        *,
        extra: Iterable[Signal] = (),
        progress: float = 0.0,
    ) -> PreferenceBatch:
        """``extra`` signals of the policy are measured besides those that the objective needs."""
        scored = {}
        for name, provider in self.providers.items():
            with self.around():
                scored[name] = provider.score(batch.inputs, signals_of(self.needs, name))
        others = {name: self.providers[name].model for name in compared_models(self.needs)}
        wanted = signals_of(self.needs, "policy") | frozenset(extra)
        if self.balance:
            wanted |= {ROUTER_LOSS}
        scored["policy"] = self.kind.score(policy, batch.inputs, wanted, others=others)
        return self._read(batch, scored, progress)

    def balancing(self, scored: PreferenceBatch) -> Tensor | float:
        """The loss that balances the policy's experts, by the model's coefficient, summed over examples."""
        if not self.balance:
            return 0.0
        return self.balance * scored.models["policy"].signals[ROUTER_LOSS].sum()

    def blank(self, batch: MicroBatch) -> PreferenceBatch:
        """The batch with every log-probability 0: enough to count what an objective averages over."""
        scored: dict[str, dict[str, TokenLogps]] = {name: {} for name in ("policy", *self.providers)}
        for view, mask in self.kind.masks(batch.inputs).items():
            zeros = mask.new_zeros(mask.shape, dtype=torch.float32)
            for name, by_view in scored.items():
                signals = {}
                for signal in signals_of(self.needs, name):
                    places = mask.shape[: len(signal.axes.split())]
                    signals[signal] = zeros.new_zeros(*places, *trailing_sizes(signal, self.sizes(name)))
                by_view[view] = TokenLogps(zeros, mask, signals)
        return self._read(batch, scored, 0.0)

    def _read(
        self, batch: MicroBatch, scored: Mapping[str, Mapping[str, TokenLogps]], progress: float
    ) -> PreferenceBatch:
        """Scores and what was looked up, as an objective reads them."""
        by_view: dict[str, dict[str, TokenLogps]] = {}
        for view in (MAIN, *self.needs.views):
            models = by_view[view] = {name: scores[view] for name, scores in scored.items()}
            policy = models["policy"]
            for name, cached in batch.cached.items():
                models[name] = TokenLogps(cached[view].to(policy.logps.dtype), policy.mask)
        views = {
            view: PreferenceBatch(
                by_view[view], self._columns_of(needs, batch), needs.roles, progress=progress
            )
            for view, needs in self.needs.views.items()
        }
        return PreferenceBatch(by_view[MAIN], batch.columns, self.needs.roles, views, progress)

    def _columns_of(self, view: Needs, batch: MicroBatch) -> dict[str, Tensor]:
        """The columns as a view reads them: those of its responses, and none of tokens, which are those of
        the examples themselves."""
        places = [self.needs.roles.index(role) for role in view.roles]
        return {
            name: values[:, places] if places and SCHEMA[name].axes == "example response" else values
            for name, values in batch.columns.items()
            if not SCHEMA[name].axes.endswith("token")
        }


@dataclass(frozen=True)
class Ranks:
    """The processes that share an optimizer step. ``gather`` joins every rank's list, in rank order."""

    count: int
    sum: Callable[[Tensor], Tensor]
    gather: Callable[[list[Any]], list[Any]]
    device: torch.device


def gathered(
    scored: Sequence[PreferenceBatch], batches: Sequence[MicroBatch], ranks: Ranks
) -> tuple[PreferenceBatch, Int[Tensor, " example"]]:
    """The scored micro-batches of all ranks as one batch, and the places of its examples in the data set.

    They are in the order of the data set, so that neither the dealing nor the number of ranks shows.
    """
    mine = [
        (mapped(scores, Tensor.cpu), batch.examples.cpu())
        for scores, batch in zip(scored, batches, strict=True)
        if batch.weight > 0
    ]
    everyone = ranks.gather(mine)
    examples = torch.cat([places for _, places in everyone])
    order = examples.argsort(stable=True)
    whole = mapped(joined([scores for scores, _ in everyone]), lambda values: values[order].to(ranks.device))
    return whole, examples[order]


@dataclass(frozen=True)
class Share:
    """The contribution of one micro-batch to an optimizer step.

    ``loss`` has the gradient of the micro-batch's share of the step's loss, times the number of ranks
    (gradients are averaged over them); its values add up, over micro-batches, to the step's loss on the
    average over ranks. ``terms`` are the total and the count of each term, as far as they were seen with this
    micro-batch.
    """

    loss: Tensor
    batch: PreferenceBatch
    terms: Sequence[tuple[Tensor, Tensor]]


class UpdateRule(Protocol):
    """Turns the micro-batches of an optimizer step into gradients.

    ``begin`` sees all of this rank before the first of them is scored; ``share`` is then called for each in
    turn.
    """

    def begin(self, batches: Sequence[MicroBatch]) -> None: ...

    def share(
        self, policy: nn.Module, batch: MicroBatch, extra: frozenset[Signal], progress: float
    ) -> Share: ...


@dataclass(eq=False)
class BackwardAndStep:
    """Each micro-batch alone, for objectives that are sums over examples.

    Every term is divided by its count over all micro-batches and ranks of the step, which is known before
    anything is scored. The loss that balances experts is a number of each micro-batch: the step's is their
    average, weighted by their examples.
    """

    objective: Objective
    scorer: Scorer
    ranks: Ranks
    counts: Tensor = field(init=False)
    """Of every term, and of the examples behind them."""

    def begin(self, batches: Sequence[MicroBatch]) -> None:
        counts = []
        for one in batches:
            blank = self.scorer.blank(one)
            examples = blank.lengths.new_tensor(len(one))
            counts.append(torch.stack([*self.objective.counts(blank), examples]) * one.weight)
        self.counts = self.ranks.sum(torch.stack(counts).sum(0).to(self.ranks.device)).clamp(min=1)

    def share(self, policy: nn.Module, batch: MicroBatch, extra: frozenset[Signal], progress: float) -> Share:
        scored = self.scorer(policy, batch, extra=extra, progress=progress)
        terms = [(term.total * batch.weight, term.count * batch.weight) for term in self.objective(scored)]
        loss = sum(
            (total / count for (total, _), count in zip(terms, self.counts[:-1], strict=True)),
            scored.lengths.new_zeros(()),
        )
        loss = loss + self.scorer.balancing(scored) * batch.weight / self.counts[-1]
        return Share(loss * self.ranks.count, scored, terms)


class WholeStep:
    """All micro-batches of all ranks as one, for objectives that are no sum over examples. Exact.

    Every micro-batch is scored without a graph, the loss of the joined batch gives the gradient with respect
    to every token's log-probability, and each micro-batch is then scored again and takes its part of it
    backward. That is possible for every objective, because an objective sees nothing else of the model. A
    single micro-batch on a single rank is its own whole step and is scored once.
    """

    def __init__(self, objective: Objective, scorer: Scorer, ranks: Ranks) -> None:
        self.objective, self.scorer, self.ranks = objective, scorer, ranks
        self._batches: Sequence[MicroBatch] = ()
        self._next = 0
        self._states: list[dict[str, Tensor]] = []
        self._pulls: list[list[_Pull]] = []
        self._own: list[tuple[Tensor, Tensor]] = []
        self._loss = torch.zeros(())
        self._terms: list[tuple[Tensor, Tensor]] = []

    def begin(self, batches: Sequence[MicroBatch]) -> None:
        self._batches, self._next = batches, 0

    def share(self, policy: nn.Module, batch: MicroBatch, extra: frozenset[Signal], progress: float) -> Share:
        if len(self._batches) == 1 and self.ranks.count == 1:
            scored = self.scorer(policy, batch, extra=extra, progress=progress)
            return Share(self._whole_loss(scored), scored, self._terms)
        if self._next == 0:
            self._look_ahead(policy, progress)
        number, self._next = self._next, self._next + 1
        _set_random_state(self._states[number])
        scored = self.scorer(policy, batch, extra=extra, progress=progress)
        pull = scored.models["policy"].logps.sum() * 0.0
        for part in self._pulls[number]:
            pull = pull + (_value(scored, part.view, part.signal) * part.gradient).sum()
        pull = pull * self.ranks.count
        reported = torch.zeros_like(self._loss)
        if number == 0:
            # what the objective learns: every rank has its whole gradient
            pull = pull + sum(((weight * slope).sum() for weight, slope in self._own), 0.0)
            reported = self._loss
        return Share(pull + (reported - pull.detach()), scored, self._terms if number == 0 else ())

    def _whole_loss(self, batch: PreferenceBatch) -> Tensor:
        terms = self.objective(batch)
        self._terms = [(term.total.detach(), term.count) for term in terms]
        loss = sum((term.total / term.count.clamp(min=1) for term in terms), batch.lengths.new_zeros(()))
        return loss + self.scorer.balancing(batch) / len(batch.lengths)

    def _look_ahead(self, policy: nn.Module, progress: float) -> None:
        """The loss of the whole step and, for each micro-batch of this rank, its gradient at the policy's
        numbers."""
        scored, self._states = [], []
        with torch.no_grad():
            for batch in self._batches:
                self._states.append(_random_state(self.ranks.device))
                scores = self.scorer(policy, batch.to(self.ranks.device), progress=progress)
                scored.append(mapped(scores, Tensor.cpu))
        whole, examples = gathered(scored, self._batches, self.ranks)
        whole, leaves = _with_leaves(whole)
        loss = self._whole_loss(whole)
        own = [weight for weight in self.objective.parameters() if weight.requires_grad]
        slopes = torch.autograd.grad(loss, [*(leaf.tensor for leaf in leaves), *own], allow_unused=True)
        for leaf, slope in zip(leaves, slopes, strict=False):
            leaf.tensor.grad = slope
        learned = zip(own, slopes[len(leaves) :], strict=True)
        self._own = [(weight, slope) for weight, slope in learned if slope is not None]
        self._loss = loss.detach()
        place = {int(example): at for at, example in enumerate(examples)}
        self._pulls = [
            [
                leaf.of([place[int(example)] for example in batch.examples], scores)
                for leaf in (leaves if batch.weight > 0 else ())
            ]
            for scores, batch in zip(scored, self._batches, strict=True)
        ]


@dataclass(frozen=True)
class _Pull:
    """The gradient at one tensor of the policy's: its log-probabilities (``signal`` None) or a signal."""

    view: str
    signal: Signal | None
    gradient: Tensor


@dataclass(frozen=True)
class _Leaf:
    """One tensor of the policy's in the batch of a whole step, where a gradient is wanted."""

    view: str
    signal: Signal | None
    tensor: Tensor

    def of(self, places: list[int], scored: PreferenceBatch) -> _Pull:
        """The part of the gradient that belongs to a micro-batch, whose examples have these places."""
        gradient = torch.zeros_like(self.tensor) if self.tensor.grad is None else self.tensor.grad
        shape = _value(scored, self.view, self.signal).shape
        return _Pull(self.view, self.signal, gradient[places][tuple(slice(size) for size in shape)])


def _value(batch: PreferenceBatch, view: str, signal: Signal | None) -> Tensor:
    policy = (batch.views[view] if view else batch).models["policy"]
    return policy.logps if signal is None else policy.signals[signal]


def _with_leaves(batch: PreferenceBatch) -> tuple[PreferenceBatch, list[_Leaf]]:
    """The batch with every number of the policy's a leaf that wants a gradient, in all views."""
    leaves: list[_Leaf] = []

    def opened(inner: PreferenceBatch, view: str) -> PreferenceBatch:
        policy = inner.models["policy"]
        logps = policy.logps.detach().requires_grad_()
        signals = {signal: values.detach().requires_grad_() for signal, values in policy.signals.items()}
        leaves.append(_Leaf(view, None, logps))
        leaves.extend(_Leaf(view, signal, values) for signal, values in signals.items())
        return replace(inner, models={**inner.models, "policy": TokenLogps(logps, policy.mask, signals)})

    views = {view: opened(inner, view) for view, inner in batch.views.items()}
    return replace(opened(batch, MAIN), views=views), leaves


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
