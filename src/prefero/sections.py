"""Sections of a recipe as types: what each may say, checked, and how mistakes in one are explained.

A section is a model or a dataclass of pydantic. The type that a recipe is read into is the type that Python
takes (:class:`~prefero.reference.providers.ReferenceSpec`, :class:`~prefero.models.loading.ModelSource`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs

from prefero.errors import PreferoError, nearest

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())
"""Unknown keys and numbers that are not finite are refused."""


MANY = 30
"""Keys of a section that are too many for a message."""


LONGEST = 200
"""Characters of a value in a message."""


def _is_number(annotation: Any) -> bool:
    """Whether a setting of that type is a number, and may not be a truth value as well."""
    inside, types = [annotation], []
    while inside:
        types.append(inside.pop())
        inside += get_args(types[-1])
    return bool({int, float} & {*filter(lambda one: isinstance(one, type), types)}) and bool not in types


class Section(BaseModel):
    """A part of a recipe that has no use outside of one."""

    model_config = STRICT

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, field: ValidationInfo) -> Any:
        if isinstance(value, bool) and _is_number(cls.model_fields[str(field.field_name)].annotation):
            raise ValueError("true and false are no numbers")
        return value


class Spec:
    """Base of a dataclass that is a section of a recipe and an argument in Python.

    Raises :class:`PreferoError` where Python gives it what it does not take. A mistake in a recipe is raised
    by the recipe, with its place.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, given: Any, check: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return check(given)
        except ValidationError as error:
            if isinstance(given, ArgsKwargs):
                raise PreferoError("; ".join(problems(error, cls, whole=cls.__name__))) from None
            raise


def fields_of(section: Any) -> Mapping[str, FieldInfo]:
    """The keys that a section knows; of a type that is no section, none."""
    return getattr(section, "__pydantic_fields__", {})


def sections_in(section: type) -> dict[str, type]:
    """The sections inside one, by key."""
    return {
        name: option
        for name, field in fields_of(section).items()
        for option in (field.annotation, *get_args(field.annotation))
        if fields_of(option)
    }


def problems(
    error: ValidationError,
    root: type,
    *,
    whole: str = "the recipe",
    home: Callable[[str], str] = lambda key: "",
) -> Iterator[str]:
    """Each mistake in ``root``, which messages call ``whole``, with its place.

    A misspelled key is often what another key is missing for, so unknown keys are told alone. ``home`` says
    where a key belongs that is near to no key of its section.
    """
    unknown: list[str] = []
    others: dict[str, list[str]] = {}  # the branches of a union share a place
    for problem in error.errors(include_url=False):
        place, known = _place(problem["loc"], root)
        where, key, given = ".".join(place), place[-1] if place else "", problem["input"]
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            listed = f" (it knows {', '.join(known)})" if len(known) < MANY else ""
            hint = nearest(key, known) or home(key) or listed
            unknown.append(f"{'.'.join(place[:-1]) or whole} has no key {key!r}{hint}")
        elif problem["type"] == "missing":
            others[f"{whole} lacks {where}"] = [known[key].description or "it has no default"]
        else:
            message = re.sub(r" or (an )?instance of _\w+", "", problem["msg"].removeprefix("Value error, "))
            choices = re.findall(r"'([^']*)'", problem.get("ctx", {}).get("expected", ""))
            told = message[:1].lower() + message[1:] + nearest(str(given), choices)
            others.setdefault(f"{where} is {_shown(given)}" if place else whole, []).append(told)
    yield from unknown or (f"{where}: {' or '.join(dict.fromkeys(told))}" for where, told in others.items())


def _shown(given: Any) -> str:
    written = repr(given)
    return written if len(written) <= LONGEST else f"{written[:LONGEST]}…"


def _place(location: tuple[int | str, ...], root: type) -> tuple[list[str], Mapping[str, FieldInfo]]:
    """The keys that lead to a mistake, and those that the last of them is one of."""
    place: list[str] = []
    known = inside = fields_of(root)
    for part in location:
        if not inside:
            break  # within a value: the branch of a union, the number of an element
        key = list(inside)[part] if isinstance(part, int) else part  # a number: an argument by its position
        known = inside
        place.append(key)
        if key in known:
            options = (known[key].annotation, *get_args(known[key].annotation))
            inside = next(filter(None, map(fields_of, options)), {})
    return place, known
