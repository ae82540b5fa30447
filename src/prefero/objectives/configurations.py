"""Objectives out of configurations: a method, what fills its slots, and what is added to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefero.errors import PreferoError, nearest
from prefero.objectives.compare import Objective, Sum
from prefero.objectives.needs import dry_run
from prefero.objectives.ranges import Range
from prefero.objectives.registry import Parameter, find, method, parameters_of, refuse_unknown
from prefero.objectives.slots import SLOTS, filled


def from_config(config: Any) -> Objective:
    """Build what a configuration describes: a method's name, or a mapping ::

        {"method": "dpo", "beta": 0.1, "weight": "wpo", "coefficient": 0.8, "plus": {"nll": 0.2}}

    ``reward``, ``weight``, ``target`` and ``reduce`` name what is put into the slot of that name
    (:data:`prefero.objectives.slots.SLOTS`), or map its name to its arguments: a reward takes the place of
    the log-ratio of a whole response, a weight multiplies the method's own, a target adds to it, a reduction
    takes the place of a mean. ``coefficient`` multiplies the method (unless it has an argument of that name),
    and ``plus`` maps methods to the coefficients they are added with, or to mappings of ``coefficient`` and
    the method's own arguments. ``settings`` names values that were published for a model or task
    (:attr:`~prefero.objectives.registry.Method.settings`), which stand in the place of the method's defaults.
    The objective's ``key`` and ``arguments`` give the configuration back, with the settings spelled out.

    Raises :class:`~prefero.errors.PreferoError` for what :func:`method` refuses and for combinations that
    make no sense.
    """
    if isinstance(config, str):
        return method(config)
    if not isinstance(config, Mapping) or not isinstance(config.get("method"), str):
        raise PreferoError("an objective is a method's name, or a mapping with a `method` and its arguments")
    scaled = "coefficient" in config and "coefficient" not in find(config["method"]).parameters
    reserved = ("method", "settings", *SLOTS, "plus", *(["coefficient"] if scaled else []))
    own = dict(published_settings(config))
    learning_rate = own.pop("learning_rate", None)
    own |= {name: value for name, value in config.items() if name not in reserved}
    base = method(config["method"], **own)
    assert base.key is not None
    objective, arguments = base, dict(base.arguments)
    for slot in SLOTS:
        if config.get(slot) is not None:
            arguments[slot] = config[slot]
            objective = slotted(objective, base.key, slot, config[slot])
    if scaled:
        arguments["coefficient"] = coefficient_of(config, "the objective")
        objective = arguments["coefficient"] * objective
    if config.get("plus"):
        arguments["plus"] = config["plus"]
        objective = extended(objective, base, config["plus"])
    objective.key, objective.arguments = base.key, arguments
    objective.learning_rate = learning_rate
    return objective


def published_settings(config: Any) -> Mapping[str, Any]:
    """The published values that ``settings`` of a configuration names, often with a learning rate.

    Raises :class:`~prefero.errors.PreferoError` for a name that the method has no values of.
    """
    name = config.get("settings") if isinstance(config, Mapping) else None
    if name is None:
        return {}
    entry = find(config["method"])
    if not isinstance(name, str) or name not in entry.settings:
        offered = f"it has {', '.join(entry.settings)}" if entry.settings else "it has none"
        hint = nearest(str(name), entry.settings)
        raise PreferoError(f"{entry.key} has no published settings for {name!r}{hint} ({offered})")
    return entry.settings[name]


def slotted(objective: Objective, key: str, slot: str, choice: Any) -> Objective:
    name, arguments = named(slot, choice)
    known = SLOTS[slot]
    if name not in known:
        raise PreferoError(f"no {slot} is called {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    place = f"the {slot} {name}"
    if name == key:
        raise PreferoError(f"{name} already is the {slot} of the method {name}; leave `{slot}` out")
    parameters = parameters_of(known[name])
    refuse_unknown(arguments, parameters, place)
    checked = {one: parameters[one].checked(value, place) for one, value in arguments.items()}
    try:
        changed = filled(objective, slot, known[name](**checked))
        changed.key, changed.states = key, objective.states
        if bool(dry_run(changed).roles) != bool(dry_run(objective).roles):
            raise PreferoError("it makes no sense for responses without roles")
    except PreferoError as error:
        raise PreferoError(f"{place} does not go with {key}: {error}") from None
    return changed


def named(what: str, choice: Any) -> tuple[str, Mapping[str, Any]]:
    """A name, and the arguments that belong to it."""
    if isinstance(choice, str):
        return choice, {}
    if isinstance(choice, Mapping) and len(choice) == 1:
        ((name, arguments),) = choice.items()
        if isinstance(name, str) and (arguments is None or isinstance(arguments, Mapping)):
            return name, arguments or {}
    raise PreferoError(f"`{what}` is a name, or maps one name to its arguments; {choice!r} is neither")


def extended(objective: Objective, base: Objective, additions: Any) -> Objective:
    if not isinstance(additions, Mapping):
        raise PreferoError(
            f"`plus` maps methods to their coefficients, as in {{nll: 0.2}}, not {additions!r}"
        )
    parts = [(1.0, objective)]
    for key, value in additions.items():
        arguments = dict(value) if isinstance(value, Mapping) else {"coefficient": value}
        if "coefficient" not in arguments:
            raise PreferoError(f"`plus.{key}` needs a coefficient")
        coefficient = coefficient_of(arguments, f"`plus.{key}`")
        del arguments["coefficient"]
        addition = method(key, **arguments)
        refuse_mixed(base, addition)
        parts.append((coefficient, addition))
    return Sum(*parts)


def coefficient_of(config: Mapping[str, Any], place: str) -> float:
    coefficient: float = Parameter("coefficient", 1.0, float, Range()).checked(config["coefficient"], place)
    return coefficient


def refuse_mixed(base: Objective, addition: Objective) -> None:
    """Refuse to add to an update rule of its own, and to mix methods of roles with those of unnamed lists."""
    for part in (base, addition):
        if part.update is not None:
            raise PreferoError(f"{part.key} steps by a rule of its own, so nothing can be added to it")
    first, second = dry_run(base).roles, dry_run(addition).roles
    if bool(first) != bool(second) and not (takes_any_reading(base) or takes_any_reading(addition)):
        addressing, listing = (base, addition) if first else (addition, base)
        roles = " and ".join(first or second)
        raise PreferoError(
            f"{base.key} plus {addition.key} makes no sense: {addressing.key} addresses the {roles} "
            f"response of each example, {listing.key} reads responses without roles"
        )


def takes_any_reading(objective: Objective) -> bool:
    """Whether it reads every response on its own, whatever the responses are to each other."""
    needs = dry_run(objective)
    return not (needs.roles or needs.columns or needs.views)
