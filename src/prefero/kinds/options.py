"""The options that a recipe gives a kind of model, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from prefero.errors import PreferoError, nearest

Options = TypeVar("Options", bound=BaseModel)


def parsed(options: type[Options], given: Mapping[str, Any] | None, kind: str) -> Options:
    """What was given, as a model that forbids what it does not know.

    Raises :class:`PreferoError` naming the option.
    """
    for name in given or {}:
        if name not in options.model_fields:
            known = ", ".join(options.model_fields)
            raise PreferoError(
                f"model.options has no {name!r} for a model of kind {kind}"
                f"{nearest(name, options.model_fields)}. Its options: {known}."
            )
    try:
        return options(**(given or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PreferoError(f"model.options.{where} of kind {kind}: {first['msg']}") from None


def no_options(kind: str, given: Mapping[str, Any] | None) -> None:
    """For kinds that have none."""
    if given:
        raise PreferoError(
            f"a model of kind {kind} has no options, but model.options gives {', '.join(given)}"
        )
