"""Layouts of rows, and typed access to a row's fields, with errors that name file, row, field and what was
expected."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np

from prefero.data.examples import Example, Message, Response, Text, says_something
from prefero.data.files import Row
from prefero.data.pictures import Picture, is_picture, picture
from prefero.errors import PreferoError, nearest

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "system": "system", "tool": "tool", "user": "user"}

TRUE = (True, 1, "1", "true", "True", "yes")
FALSE = (False, 0, -1, "0", "-1", "false", "False", "no")

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
IMAGE = "an image: a file's path, bytes, an array, a PIL image or a datasets image"


@dataclass(frozen=True, slots=True)
class Layout:
    """One way people lay out preference data.

    ``columns`` tells a reader which fields such a row has. A specimen of the data (every field of the first
    rows, with its first value that is not null) has the layout if each of the patterns ``fields`` is the
    whole name of some field, ``without`` that of none, and ``holds`` is true of it.
    """

    name: str
    columns: str
    read: Callable[[Fields], Example]
    fields: tuple[str, ...]
    without: str | None = None
    holds: Callable[[Mapping[str, Any]], bool] | None = None

    def matches(self, specimen: Mapping[str, Any]) -> bool:
        names = list(map(str, specimen))
        if not all(any(re.fullmatch(pattern, name) for name in names) for pattern in self.fields):
            return False
        if self.without and any(re.fullmatch(self.without, name) for name in names):
            return False
        return self.holds is None or self.holds(specimen)


class Fields:
    """The fields of one row. Raises :class:`PreferoError` for a row that cannot be read."""

    def __init__(self, row: Row) -> None:
        if row.problem:
            raise PreferoError(row.problem)
        self.origin = row.origin
        self.values = row.fields
        self.folder = row.folder

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def fail(self, field: str, found: str, expected: str) -> NoReturn:
        raise PreferoError(f"{self.origin}, field {field!r}: {found}. Expected {expected}")

    def first(self, names: Iterable[str]) -> str | None:
        """The first of ``names`` that the row has."""
        return next((name for name in names if name in self), None)

    def require(self, name: str, expected: str) -> Any:
        value = self.values.get(name)
        if value is None:
            found = "is null" if name in self.values else f"missing{nearest(name, map(str, self.values))}"
            self.fail(name, found, expected)
        return value

    def text(self, name: str, expected: str = "text") -> str:
        value = self.require(name, expected)
        if not isinstance(value, str):
            self.fail(name, f"found {_shown(value)}", expected)
        return value

    def turns(self, name: str, expected: str = "text, or a list of messages with role and content") -> Text:
        """Text or a conversation; a conversation may also be given as JSON."""
        return self.as_turns(self.require(name, expected), name, expected)

    def as_turns(self, value: Any, name: str, expected: str) -> Text:
        if isinstance(value, str):
            parsed = json_list(value)
            if not (parsed and all(isinstance(turn, dict) and "role" in turn for turn in parsed)):
                return value
            value = parsed
        if isinstance(value, dict) and "role" in value:
            value = [value]
        if not isinstance(value, list | tuple) or not all(isinstance(turn, Mapping) for turn in value):
            self.fail(name, f"found {_shown(value)}", expected)
        return tuple(self._message(turn, name) for turn in value)

    def _message(self, turn: Mapping[str, Any], name: str) -> Message:
        if "from" in turn and "value" in turn:
            speaker = turn["from"]
            turn = {"role": SHAREGPT_ROLES.get(speaker, speaker), "content": turn["value"]}
        if not isinstance(turn.get("role"), str) or "content" not in turn:
            self.fail(name, f"found the message {_shown(turn)}", "messages that have a role and a content")
        kept = {key: value for key, value in turn.items() if value is not None or key == "content"}
        if not isinstance(kept["content"], str | list) and not kept.get("tool_calls"):
            self.fail(name, f"a message's content is {_shown(kept['content'])}", "text as its content")
        return kept

    def response(self, name: str, role: str | None = None) -> Response:
        """The field as a response that says something."""
        content = self.turns(name)
        self.not_empty(content, name)
        return Response(content, role)

    def not_empty(self, content: Text, name: str) -> None:
        if not isinstance(content, str) and all(turn["role"] != "assistant" for turn in content):
            self.fail(name, "the conversation has no assistant message", "a message of the assistant")
        if not says_something(content):
            self.fail(name, "the response is empty", "a response that says something")

    def number(self, name: str, expected: str = "a number") -> float:
        return self.as_number(self.require(name, expected), name, expected)

    def as_number(self, value: Any, name: str, expected: str = "a number") -> float:
        """A finite number; text that spells one counts."""
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            self.fail(name, f"found {_shown(value)}", f"{expected}, finite")
        return number

    def list(self, name: str, expected: str) -> list[Any]:
        """A list, or JSON that spells one."""
        value = self.require(name, expected)
        if isinstance(value, str):
            value = json_list(value)
        if not isinstance(value, list | tuple) or not value:
            self.fail(name, f"found {_shown(self.values[name])}", expected)
        return list(value)

    def tools(self) -> tuple[Mapping[str, Any], ...]:
        if not self.values.get("tools"):
            return ()
        tools = self.list("tools", "a list of JSON schemas")
        try:
            tools = [json.loads(tool) if isinstance(tool, str) else tool for tool in tools]
        except json.JSONDecodeError:
            self.fail("tools", f"found {_shown(tools)}, which is no JSON", "a list of JSON schemas")
        if not all(isinstance(tool, dict) for tool in tools):
            self.fail("tools", f"found {_shown(tools)}", "a list of JSON schemas, one object per tool")
        return tuple(tools)

    def template_options(self) -> Mapping[str, Any]:
        options = self.values.get("chat_template_kwargs") or {}
        if not isinstance(options, Mapping):
            self.fail("chat_template_kwargs", f"found {_shown(options)}", "an object of options")
        return {key: value for key, value in options.items() if value is not None}

    def truth(self, name: str, value: Any) -> bool:
        if value in TRUE:
            return True
        if value in FALSE:
            return False
        self.fail(name, f"found {value!r}", "true or false (1 or 0)")

    def picture(self, name: str) -> Picture:
        return self.as_picture(self.require(name, IMAGE), name)

    def as_picture(self, value: Any, name: str) -> Picture:
        """A value as an image; a file has to exist."""
        if not shows(value):
            self.fail(name, f"found {type(value).__name__} {str(value)[:60]!r}", IMAGE)
        if isinstance(value, list):
            value = self._pixels(value, name)
        image = picture(value, f"{self.origin}, field {name!r}", self.folder)
        if isinstance(image.content, PurePath) and not image.content.is_file():
            self.fail(
                name, f"there is no file {image.content}", "an image's path, relative to the data's file"
            )
        return image

    def _pixels(self, rows: Any, name: str) -> np.ndarray:
        expected = "rows of pixels, whole numbers from 0 to 255"
        try:
            array = np.asarray(rows)
        except ValueError:
            self.fail(name, "lists of different lengths", expected)
        if array.dtype.kind not in "iu" or not array.size or array.min() < 0 or array.max() > 255:
            self.fail(name, f"an array of {array.dtype} numbers", expected)
        return array.astype(np.uint8)


def first_of(values: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of ``names`` that has a value."""
    return next((name for name in names if values.get(name) is not None), None)


def json_list(text: str) -> list[Any] | None:
    """The list that JSON spells, None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, list) else None


def shows(value: Any) -> bool:
    """Whether a value is an image: also a path, by its ending, and rows of pixels."""
    if isinstance(value, str):
        return value.lower().endswith(IMAGE_ENDINGS) and "\n" not in value
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], list)
    return is_picture(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
