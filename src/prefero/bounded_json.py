"""JSON from outside, read within bounds: of depth and digits, with no field twice and no half characters."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from prefero.errors import PreferoError

DEEPEST = 100
"""Lists and objects inside one another that a value may have; Python's own limit depends on the caller."""

HALF = re.compile("[\ud800-\udfff]")
"""Half of a character that JSON writes as two."""

IN_FILE = "line {0.lineno}, column {0.colno}"

Fault = tuple[list[str], str, str]
"""The keys that lead to a value, what is wrong with it, and the remedy."""

Type = TypeVar("Type")


class Repeated(dict[str, Any]):
    """A JSON object that has a field twice; ``name`` is that of the first such field."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.name = repeated_in([name for name, _ in pairs])[0]


def repeated_in(names: Iterable[str]) -> list[str]:
    """The names that stand more than once, in their order."""
    return [name for name, count in Counter(names).items() if count > 1]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, with a type of its own where a field stands twice: which one counts is not known."""
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else Repeated(pairs)


DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Marks objects that have a field twice. Raises ``ValueError`` and ``RecursionError``, of which
:func:`unreadable` tells the reason; :func:`fault_in` finds what else is wrong with a value."""


def unreadable(error: ValueError | RecursionError, place: str = "column {0.colno}") -> str:
    """The reason why a text is not read as JSON; ``place`` tells where a syntax error is."""
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON: {error.msg.removesuffix(' at')} at {place.format(error)}"
    if isinstance(error, RecursionError):
        return f"lists and objects are nested more than {DEEPEST} deep"
    return f"a whole number has more than {sys.get_int_max_str_digits():,} digits"


def fault_in(value: Any, depth: int = 0) -> Fault | None:
    """The first thing within a value that cannot be read and written again: a text that is no Unicode, a
    field that an object has twice, values nested too deeply."""
    if isinstance(value, str):
        return None if value.isascii() or not (half := HALF.search(value)) else _half(value, half)
    if isinstance(value, dict):
        if isinstance(value, Repeated):
            return [], f"the field {value.name!r} stands twice in one object", "Leave one of the two out"
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return None
    if depth == DEEPEST:
        return [], f"lists and objects are nested more than {DEEPEST} deep", "Write the row without them"
    for key, inner in items:
        fault = fault_in(inner, depth + 1) or (fault_in(key) if isinstance(key, str) else None)
        if fault is not None:
            return [str(key), *fault[0]], *fault[1:]
    return None


def _half(text: str, half: re.Match[str]) -> Fault:
    shown = ascii(text[max(half.start() - 20, 0) : half.end()])
    return [], f"a text holds half a character, as in {shown}", "Write the whole character"


def place_of(fault: Fault) -> str:
    """Where in a value a fault is, as the end of a message."""
    return f" (field {ascii('.'.join(fault[0][:4]))[1:-1]})" if fault[0] else ""


def not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x} at position {error.start})"


def read_as(kind: type[Type], text: bytes, whole: str) -> Type:
    """The value of a type of pydantic, or a dataclass, that a JSON text holds; messages call it ``whole``.

    Raises :class:`PreferoError` with the reason where the text is something else.
    """
    from pydantic import TypeAdapter, ValidationError

    from prefero.sections import problems

    try:
        value = DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise PreferoError(f"{whole} is {not_utf8(error)}") from None
    except (ValueError, RecursionError) as error:
        raise PreferoError(f"{whole} is {unreadable(error, IN_FILE)}") from None
    if fault := fault_in(value):
        raise PreferoError(f"{whole}: {fault[1]}{place_of(fault)}")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise PreferoError(f"{whole}: {'; '.join(problems(error, kind, whole='it'))}") from None
