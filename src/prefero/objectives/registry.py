"""The published methods by name, with what their arguments may be."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, ParamSpec, get_args, get_origin, get_type_hints

from prefero.errors import PreferoError, nearest
from prefero.objectives.compare import Objective
from prefero.objectives.ranges import Range
from prefero.objectives.signals import States

Feedback = Literal["pairs", "lists", "unpaired", "ties", "scores", "steps", "spans", "samples"]
"""What data must carry: pairs, lists or unpaired responses; and ties, scores, reasoning steps, annotated
spans of a response; ``samples`` are responses drawn in rounds from the policy while it trains."""


@dataclass(frozen=True, slots=True)
class Equal:
    """A method's special case: with the arguments ``at`` it has the loss and gradient of ``method`` with the
    arguments ``given``; every argument that both take and neither names is the same."""

    method: str
    at: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of a method: its default (``inspect.Parameter.empty``: none) and what it may be."""

    name: str
    default: Any
    kind: Any
    range: Range | None = None

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def checked(self, value: Any, method: str) -> Any:
        """The value, or a :class:`~prefero.errors.PreferoError` that says what it may be."""
        place = f"{self.name} of {method}"
        if value is None and type(None) in get_args(self.kind):
            return None
        choices = get_args(self.kind) if get_origin(self.kind) is Literal else ()
        if choices:
            if isinstance(value, bool) or value not in choices:
                offered = ", ".join(map(repr, choices))
                raise PreferoError(
                    f"{place} is one of {offered}, not {value!r}{nearest(str(value), map(str, choices))}"
                )
            return value
        if self.kind in (str, bool):
            if not isinstance(value, self.kind):
                wanted = "text" if self.kind is str else "true or false"
                raise PreferoError(f"{place} is {wanted}, not {value!r}")
            return value
        if any(get_origin(one) in (list, tuple, Sequence) for one in (self.kind, *get_args(self.kind))):
            if isinstance(value, str) or not isinstance(value, Sequence) or not value:
                raise PreferoError(f"{place} is a list of numbers, not {value!r}")
            return [self.number(element, place) for element in value]
        return self.number(value, place)

    def number(self, value: Any, place: str) -> float:
        # YAML 1.1 reads 1e-3, without a dot, as a string
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise PreferoError(f"{place} is a number, not {value!r}") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PreferoError(f"{place} is a number, not {value!r}")
        if self.range is not None and value not in self.range:
            raise PreferoError(f"{place} lies in {self.range}, and {value!r} does not")
        if (isinstance(value, int) and abs(value) > sys.float_info.max) or not math.isfinite(value):
            raise PreferoError(f"{place} is a number of ordinary size, not {value!r}")
        if self.kind is int and value != int(value):
            raise PreferoError(f"{place} is a whole number, not {value!r}")
        return int(value) if self.kind is int else value


@dataclass(frozen=True, slots=True)
class Method:
    """The registry entry of a published method.

    ``feedback`` is what its data must carry; ``settings`` the published values, by model or task;
    ``equals`` its special cases that are other methods; ``relatives`` what it is easily taken for;
    ``pitfalls`` what goes wrong with it; ``states`` what its responses must be scored in, if the method is
    made for some: elsewhere it is another one.
    """

    key: str
    title: str
    equation: str
    feedback: frozenset[Feedback]
    build: Callable[..., Objective] = field(repr=False)
    parameters: Mapping[str, Parameter]
    paper: str = ""
    citation: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    relatives: str = ""
    aliases: tuple[str, ...] = ()
    equals: tuple[Equal, ...] = ()
    pitfalls: str = ""
    states: States | None = None

    @property
    def defaults(self) -> Mapping[str, Any]:
        return {name: one.default for name, one in self.parameters.items() if not one.required}

    @property
    def description(self) -> str:
        return inspect.getdoc(self.build) or ""


_methods: dict[str, Method] = {}
_aliases: dict[str, str] = {}

Arguments = ParamSpec("Arguments")


def published(
    *,
    title: str,
    equation: str,
    feedback: Set[Feedback] = frozenset({"pairs"}),
    paper: str = "",
    citation: str = "",
    settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    relatives: str = "",
    aliases: tuple[str, ...] = (),
    equals: tuple[Equal, ...] = (),
    pitfalls: str = "",
    states: States | None = None,
) -> Callable[[Callable[Arguments, Objective]], Callable[Arguments, Objective]]:
    """Register the decorated function under its name.

    Arguments are checked for the ranges of their annotations; objectives say how they were built.
    """

    def register(function: Callable[Arguments, Objective]) -> Callable[Arguments, Objective]:
        key = function.__name__
        parameters = parameters_of(function)
        signature = inspect.signature(function)

        @functools.wraps(function)
        def build(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Objective:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            arguments = {
                name: parameters[name].checked(value, key) for name, value in given.arguments.items()
            }
            objective = function(**arguments)  # type: ignore[call-arg]
            objective.key, objective.arguments = key, arguments
            objective.states = states
            return objective

        for name in (key, *aliases):
            if name in _methods or name in _aliases:
                raise ValueError(f"two methods are called {name!r}")
        _aliases.update(dict.fromkeys(aliases, key))
        _methods[key] = Method(
            key,
            title,
            equation,
            frozenset(feedback),
            build,
            parameters,
            paper,
            citation,
            settings,
            relatives,
            aliases,
            equals,
            pitfalls,
            states,
        )
        return build

    return register


def parameters_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    kinds, hints = get_type_hints(function), get_type_hints(function, include_extras=True)
    return {
        name: Parameter(name, one.default, kinds[name], range_in(hints[name]))
        for name, one in inspect.signature(function).parameters.items()
    }


def range_in(hint: Any) -> Range | None:
    """The range that an annotation states, for itself or for its elements."""
    inner = [*getattr(hint, "__metadata__", ()), *map(range_in, get_args(hint))]
    return next((found for found in inner if isinstance(found, Range)), None)


def methods() -> Mapping[str, Method]:
    """All published methods by key."""
    return MappingProxyType(_methods)


def find(key: str) -> Method:
    """The method of that key or alias, or a :class:`~prefero.errors.PreferoError` naming the nearest."""
    key = _aliases.get(key, key)
    if key not in _methods:
        known = [*_methods, *_aliases]
        raise PreferoError(
            f"no method is called {key!r}{nearest(str(key), known)} (`prefero methods` lists all of them)"
        )
    return _methods[key]


def drawn_in_rounds(objective: Objective) -> bool:
    """Whether its method is made for responses that are drawn from the policy while it trains."""
    return objective.key in _methods and "samples" in _methods[objective.key].feedback


def method(key: str, **arguments: Any) -> Objective:
    """Build a published method by name: ``method("simpo", beta=2.5)``.

    Raises :class:`~prefero.errors.PreferoError` for an unknown name or argument, a missing argument, and a
    value out of range.
    """
    entry = find(key)
    refuse_unknown(arguments, entry.parameters, entry.key)
    missing = [name for name, one in entry.parameters.items() if one.required and name not in arguments]
    if missing:
        raise PreferoError(f"{entry.key} needs {' and '.join(missing)}, which has no default")
    return entry.build(**arguments)


def refuse_unknown(arguments: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
    for name in arguments:
        if name not in known:
            offered = f"it takes {', '.join(known)}" if known else "it takes none"
            raise PreferoError(f"{place} has no argument {name!r}{nearest(name, known)} ({offered})")
