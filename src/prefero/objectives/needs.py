"""What an objective needs, found by running it once on a batch that writes down what is touched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, SupportsIndex, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from prefero.data.schema import SCHEMA, Axes
from prefero.errors import PreferoError, nearest
from prefero.objectives.batch import PreferenceBatch, Signal, TokenLogps
from prefero.objectives.compare import Objective
from prefero.objectives.heads import Fitted
from prefero.objectives.signals import States

EXAMPLES, RESPONSES, TOKENS, HIDDEN, LAYERS = 3, 11, 5, 7, 2
"""Sizes of the recording batch: all different, so that numbers per response and per token are not mixed up,
and responses for a pair with eight samples."""

SIZES: Mapping[Axes, tuple[int, ...]] = {
    "example": (EXAMPLES,),
    "example response": (EXAMPLES, RESPONSES),
    "example response token": (EXAMPLES, RESPONSES, TOKENS),
    "example hidden": (EXAMPLES, HIDDEN),
}

TRAILING: Mapping[str, tuple[str, ...]] = {
    "state": ("hidden",),
    "prompt_state": ("hidden",),
    "token_state": ("hidden",),
    "token_states": ("layer", "hidden"),
    "mean_activations": ("layer",),
}
"""The axes that some signals have behind their own: their sizes are the model's."""

Sizes = Mapping[str, int]
"""How long a model's ``hidden`` and ``layer`` axes are."""

RECORDED: Sizes = {"hidden": HIDDEN, "layer": LAYERS}


def trailing_sizes(signal: Signal, sizes: Sizes = RECORDED) -> tuple[int, ...]:
    """The sizes of a signal's trailing axes; none for most signals."""
    return tuple(sizes[axis] for axis in TRAILING.get(signal.name, ()))


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be scored and collated for an objective.

    ``roles`` are the responses it addresses, chosen and rejected first; ``()`` if it reads lists of unnamed
    candidates. ``models`` maps the models it reads, also those that another's signals are measured against,
    to the signals it asks of them; ``"policy"`` is always there. ``views`` are the other batches it reads.
    ``exact`` says that all its terms are sums over examples; otherwise an optimizer step must be seen whole.
    ``states`` maps the methods in it that are made for states of a denoiser to these.
    """

    roles: tuple[str, ...] = ()
    columns: frozenset[str] = frozenset()
    models: Mapping[str, frozenset[Signal]] = field(default_factory=lambda: {"policy": frozenset()})
    views: Mapping[str, Needs] = field(default_factory=dict)
    exact: bool = True
    states: Mapping[str, States] = field(default_factory=dict)


def every_need(needs: Needs) -> list[Needs]:
    """What an objective needs of the examples themselves and of each view."""
    return [needs, *needs.views.values()]


def model_names(needs: Needs) -> set[str]:
    """Every model that is scored, except the policy, whether read itself or only by a signal."""
    read = {name for need in every_need(needs) for name in need.models}
    return (read | {signal.against for signal in signals_of(needs) if signal.against}) - {"policy"}


def signals_of(needs: Needs, model: str | None = None) -> frozenset[Signal]:
    """The signals asked of one model, or of all of them."""
    return frozenset(
        signal
        for need in every_need(needs)
        for name, signals in need.models.items()
        if model in (None, name)
        for signal in signals
    )


def compared_models(needs: Needs) -> set[str]:
    """Models that a signal of another model is measured against: they have to be there while it is scored."""
    return {signal.against for signal in signals_of(needs) if signal.against}


def dry_run(objective: Objective) -> Needs:
    """Run a copy of the objective once on a small made-up batch, in training and in evaluation. An objective
    is not changed once it is made, so another call for the same one gives what was found.

    Raises :class:`~prefero.errors.PreferoError` for a column that the schema does not have.
    """
    if objective not in _NEEDS:
        recorder = Recorder()
        exact = True
        with torch.no_grad():
            for training in (True, False):
                terms = unfitted(copy.deepcopy(objective)).train(training)(recorder.batch())
                exact = exact and all(term.exact for term in terms)
        _NEEDS[objective] = replace(recorder.needs(exact), states=states_of(objective))
    return _NEEDS[objective]


_NEEDS: WeakKeyDictionary[Objective, Needs] = WeakKeyDictionary()
"""The needs of the objectives that there are, as far as they were asked for."""


def states_of(objective: Objective) -> dict[str, States]:
    """The states that the methods in an objective are made for, by key; none for those of any model."""
    parts = [part for part in objective.modules() if isinstance(part, Objective)]
    return {part.key or type(part).__name__: part.states for part in parts if part.states is not None}


def unfitted(objective: Objective) -> Objective:
    """The objective, with its heads ready for states of any width."""
    for module in objective.modules():
        if isinstance(module, Fitted):
            module.unfit()
    return objective


def materialise(
    objective: Objective, sizes: Callable[[str], Sizes] = lambda model: RECORDED, *, seed: int = 0
) -> Objective:
    """Make the weights of the objective whose shapes depend on the models that it reads, in place.

    ``sizes`` says how long the axes of each model's states are, by the model's name. What is drawn depends on
    ``seed`` alone, and no generator moves. Weights that exist stay as they are.
    """
    training, state = objective.training, torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        with torch.no_grad():
            objective.eval()(Recorder(sizes).batch())
    finally:
        torch.set_rng_state(state)
        objective.train(training)
    return objective


Key = TypeVar("Key")
Value = TypeVar("Value")


class Touched(Mapping[Key, Value]):
    """A mapping that makes what it is asked for, once."""

    def __init__(self, make: Callable[[Key], Value]) -> None:
        self.make = make
        self.made: dict[Key, Value] = {}

    def __getitem__(self, key: Key) -> Value:
        if key not in self.made:
            self.made[key] = self.make(key)
        return self.made[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.made)

    def __len__(self) -> int:
        return len(self.made)


class GrowingRoles(tuple):
    """A response axis whose roles get a place when they are first looked for."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def index(self, role: Any, start: SupportsIndex = 0, stop: SupportsIndex = 0) -> int:
        if role not in self.found:
            self.found.append(role)
        return self.found.index(role)


class Recorder:
    """A batch, or a view of one, that writes down what is touched."""

    def __init__(self, sizes: Callable[[str], Sizes] = lambda model: RECORDED) -> None:
        self.sizes = sizes
        self.numbers = torch.Generator().manual_seed(0)
        self.roles = GrowingRoles()
        self.models: Touched[str, TokenLogps] = Touched(self.model)
        self.columns: Touched[str, Tensor] = Touched(self.column)
        self.views: Touched[str, Recorder] = Touched(lambda name: Recorder(sizes))

    def batch(self) -> PreferenceBatch:
        return PreferenceBatch(
            self.models,
            self.columns,
            self.roles,
            Touched(lambda name: self.views[name].batch()),
            progress=0.5,
        )

    def model(self, name: str) -> TokenLogps:
        logps = -self.uniform(*SIZES["example response token"])
        signals: Touched[Signal, Tensor] = Touched(partial(self.signal, name))
        return TokenLogps(logps, torch.ones_like(logps, dtype=torch.bool), signals)

    def signal(self, model: str, signal: Signal) -> Tensor:
        if signal.against is not None:
            self.models[signal.against]
        return self.uniform(*SIZES[signal.axes], *trailing_sizes(signal, self.sizes(model)))

    def column(self, name: str) -> Tensor:
        if name not in SCHEMA:
            raise PreferoError(f"no data column is called {name!r}{nearest(name, SCHEMA)}")
        spec = SCHEMA[name]
        if name == "label":
            return self.uniform(*SIZES[spec.axes]).sub(0.5).sign()
        if spec.dtype == "float":
            return self.uniform(*SIZES[spec.axes])
        return torch.zeros(SIZES[spec.axes], dtype=torch.bool if spec.dtype == "bool" else torch.int64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.numbers) * 0.98 + 0.01

    def needs(self, exact: bool) -> Needs:
        self.models["policy"]
        # a response that only a view addresses is one of the example's all the same
        found = [*self.roles.found, *(role for view in self.views.values() for role in view.roles.found)]
        known = [role for role in ("chosen", "rejected") if role in found]
        return Needs(
            roles=(*known, *(role for role in dict.fromkeys(found) if role not in known)),
            columns=frozenset(self.columns),
            models={name: frozenset(scores.signals) for name, scores in self.models.items()},
            views={name: view.needs(exact) for name, view in self.views.items()},
            exact=exact,
        )
