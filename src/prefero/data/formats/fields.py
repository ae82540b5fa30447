"""Layouts of rows, and typed access to a row's fields, with errors that name file, row, field and what was
expected."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np

from prefero.data.examples import Content, Example, Message, Text, says_something
from prefero.data.files import Row
from prefero.data.pictures import Picture, is_picture, picture
from prefero.errors import PreferoError, nearest

ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
}
"""Speakers, in small letters, as chat templates name them."""

SPEAKER = ("role", "from", "sender", "speaker")
SAID = ("content", "value", "text")

EXCHANGES = (("input", "output"), ("human", "assistant"))
"""The keys of an object that holds a turn of the user and the assistant's answer to it."""

TURNS = "text, or a list of messages with role and content"

OF_MESSAGES = ("name", "tool_call_id", "reasoning_content", "reasoning", "thinking", "images", "prefix")
"""The keys of a message that chat templates read, besides the speaker, what is said, and calls of tools."""

MESSAGES = re.compile(r"""\s*\[\s*\{\s*(["'])(role|from|sender|speaker|content|value)\1\s*:""")
"""The beginning of a list of messages, written as text."""

BOOKKEEPING = re.compile(
    r"(.*[_.])?(id|ids|idx|index|uid|uuid|hash|source|sources|dataset|subset|split|model|models|lang|language|"
    r"category|categories|domain|type|date|url|author|subreddit|license|version|key|name|title)",
    re.IGNORECASE,
)
"""Fields and keys that tell about a row or a message, and hold none of its texts."""

PLACE = re.compile(r"\[\d+\]")
"""The place in a list, in the name of what stands there."""

TRUE = (True, 1, "true", "yes", "good", "desirable", "safe", "chosen", "accepted")
FALSE = (False, 0, -1, "false", "no", "bad", "undesirable", "unsafe", "rejected")

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
TOOLS = ("tools", "input.tools")

IMAGE = "an image: a file's path, bytes, an array, a PIL image or a datasets image"


@dataclass(frozen=True, slots=True)
class Habits:
    """How the rows of a source are written, as far as single rows do not tell.

    ``conversations`` are the columns whose texts spell conversations, ``turn_lists`` those whose texts spell
    lists of turns, ``spelled`` those whose texts that spell a list or an object stand for it. ``talks`` tells
    that rows have a system text or earlier turns: then the prompts of all rows are conversations.
    ``repeats_prompt`` tells that responses begin with their prompt, ``prompted`` that rows have a prompt, so
    that an empty one is a mistake. ``prompt`` is the column that holds it in most rows, ``beside`` are other
    columns of prompts that say something in these rows too, and so something else. ``pair`` are the columns
    of the better and the worse response. ``numbers`` are those that each column holds, ``words`` its short
    texts. ``names`` are all the columns.
    """

    conversations: frozenset[str] = frozenset()
    turn_lists: frozenset[str] = frozenset()
    spelled: frozenset[str] = frozenset()
    talks: bool = False
    repeats_prompt: bool = False
    prompted: bool = False
    prompt: str | None = None
    beside: frozenset[str] = frozenset()
    pair: tuple[str, str] | None = None
    numbers: Mapping[str, frozenset[float]] = field(default_factory=dict)
    words: Mapping[str, frozenset[str]] = field(default_factory=dict)
    names: tuple[str, ...] = ()


class ContradictionError(PreferoError):
    """Raised for a row that shows that those before it may have been read wrongly: leaving it out is no
    help."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way people lay out preference data.

    ``columns`` tells a reader which fields such a row has. A specimen of the data (every field of the first
    rows, with its first value that is not null) has the layout if each of the patterns ``fields`` is the
    whole name of some field, ``without`` that of none, and ``holds`` is true of it. ``gather`` joins the rows
    of a source that are one example.
    """

    name: str
    columns: str
    read: Callable[[Fields], Example]
    fields: tuple[str, ...] = ()
    without: str | None = None
    holds: Callable[[Mapping[str, Any]], bool] | None = None
    gather: Callable[[Iterator[Row]], Iterator[Row]] = field(default=iter)

    def matches(self, specimen: Mapping[str, Any]) -> bool:
        names = list(map(str, specimen))
        if not all(any(re.fullmatch(pattern, name) for name in names) for pattern in self.fields):
            return False
        if self.without and any(re.fullmatch(self.without, name) for name in names):
            return False
        return self.holds is None or self.holds(specimen)


class Fields:
    """The fields of one row, and which of them are read. Raises :class:`PreferoError` for a row that cannot
    be read.

    ``values`` and :meth:`look` are for deciding how to read a row; what becomes part of an example is taken
    with the other methods, which remember the field, and :meth:`take` of an object in it. ``spelled`` are the
    fields of which a text spells the value. ``notes`` are what is to be said of the reading.
    """

    def __init__(self, row: Row, habits: Habits = Habits()) -> None:
        if row.problem:
            raise PreferoError(row.problem)
        self.origin = row.origin
        self.values = _as_spelled(row.fields, habits.spelled)
        self.spelled = {name for name in habits.spelled if self.values.get(name) is not row.fields.get(name)}
        self.folder = row.folder
        self.merged = row.merged
        self.habits = habits
        self.read: set[str] = set()
        self.notes: list[str] = []

    def __contains__(self, name: str) -> bool:
        return self.look(name) is not None

    def look(self, name: str) -> Any:
        """The value of a field, None if there is none. ``question.text`` is a field of an object."""
        return look(self.values, name)

    def get(self, name: str) -> Any:
        """The value of a field that is read, None if there is none."""
        self.read.add(name)
        return self.look(name)

    def take(self, name: str, item: Mapping[str, Any], key: str) -> Any:
        """The value of a key of an object that stands in a field, or in a list there: ``answers[1]``."""
        self.read.add(f"{PLACE.sub('', name)}.{key}")
        return item.get(key)

    @property
    def columns_read(self) -> tuple[str, ...]:
        """The columns that hold something of which something is made."""
        taken = {name.partition(".")[0] for name in self.read} | self.read
        return tuple(
            str(name) for name, value in self.values.items() if name in taken and not is_blank(value)
        )

    @property
    def unread(self) -> tuple[str, ...]:
        """The fields that hold something and have not been read; of objects of which some keys have been, the
        others, at any depth."""
        return tuple(left for name, value in self.values.items() for left in self._left(str(name), [value]))

    def _left(self, name: str, values: Iterable[Any]) -> Iterator[str]:
        """The keys that have not been read of the values under a name in the objects of a list."""
        held = [value for value in values if not is_blank(value)]
        in_part = any(read.startswith(f"{name}.") for read in self.read)
        objects = list(_objects(held)) if in_part else []
        if objects and all(isinstance(item, Mapping) for item in objects):
            for key in dict.fromkeys(key for item in objects for key in item):
                yield from self._left(f"{name}.{key}", [item.get(key) for item in objects])
        elif held and name not in self.read:
            yield name

    def note(self, note: str) -> None:
        """Have something said of the row."""
        if note not in self.notes:
            self.notes.append(note)

    def fail(self, field: str, found: str, expected: str) -> NoReturn:
        raise PreferoError(f"{self.origin}, field {field!r}: {found}. Expected {expected}")

    def contradict(self, field: str, found: str, expected: str) -> NoReturn:
        """Refuse the source, which a row shows to be read wrongly."""
        raise ContradictionError(f"{self.origin}, field {field!r}: {found}. Expected {expected}")

    def first(self, names: Iterable[str]) -> str | None:
        """The first of ``names`` that the row has."""
        return next((name for name in names if name in self), None)

    def require(self, name: str, expected: str) -> Any:
        value = self.get(name)
        if value is None:
            found = "is null" if name in self.values else f"missing{nearest(name, map(str, self.values))}"
            self.fail(name, found, expected)
        return value

    def text(self, name: str, expected: str = "text") -> str:
        value = self.require(name, expected)
        if not isinstance(value, str):
            self.fail(name, f"found {_shown(value)}", expected)
        if what := _spelling(value):
            self.note(f"{name} is a text that spells {what}, and is kept as it is")
        return value

    def turns(self, name: str, expected: str = TURNS) -> Text:
        """Text or a conversation; where all texts of the column spell conversations, these."""
        value = self.require(name, expected)
        if isinstance(value, str) and name in self.habits.conversations:
            turns = spelled(value)
            if not are_messages(turns):
                self.fail(
                    name,
                    f"found {_shown(value)}, which neither JSON nor Python reads as messages",
                    "a list of messages, as in the rows before",
                )
            value = turns
        elif isinstance(value, str) and name in self.habits.spelled:
            if value.lstrip().startswith(("[", "{")):
                found = f"found {_shown(value)}, which neither JSON nor Python reads"
                self.fail(name, found, "a list or an object, as in other rows")
            self.note(f"{name} is plain text, where other rows have a list or an object")
        elif isinstance(value, str) and (what := _spelling(value)):
            self.note(f"{name} is a text that spells {what}, and is kept as it is")
        return self.as_turns(value, name, expected)

    def as_turns(self, value: Any, name: str, expected: str = TURNS) -> Text:
        """A value as text or a conversation."""
        if isinstance(value, str):
            return value
        if isinstance(value, Mapping) and _is_message(value):
            value = rows_of(value) or [dict(value)]
        if not isinstance(value, list | tuple) or not all(isinstance(turn, Mapping) for turn in value):
            self.fail(name, f"found {_shown(value)}", expected)
        turns = exchanged(value)
        if turns is not value:
            for key in ("system", *(key for exchange in EXCHANGES for key in exchange)):
                self.take(name, {}, key)
        return tuple(self._message(turn, name) for turn in turns)

    def _message(self, turn: Mapping[str, Any], name: str) -> Message:
        speaker, said = first_of(turn, SPEAKER), first_of(turn, SAID) or "content"
        calls = turn.get("tool_calls")
        if speaker is None or not isinstance(turn[speaker], str) or not (said in turn or calls):
            self.fail(name, f"found the message {_shown(turn)}", "messages that have a role and a content")
        for key in (speaker, said, "tool_calls", *OF_MESSAGES):
            self.take(name, turn, key)
        role, content = turn[speaker], turn.get(said)
        if role == "function_call" and isinstance(content, str):
            role, calls, content = "assistant", self._calls(content, name), ""
        if content is None and calls:
            content = ""  # a template would write None as a word
        if isinstance(content, list):
            content = [self._part(part, name) for part in content]
        elif not isinstance(content, str):
            self.fail(name, f"a message's content is {_shown(content)}", "text as its content")
        told = (key for key in turn if key in OF_MESSAGES or not BOOKKEEPING.fullmatch(str(key)))
        others = {key: turn[key] for key in told if key not in (speaker, said, "tool_calls")}
        role = ROLES.get(role.lower(), role)
        message = {"role": role, "content": content, "tool_calls": calls, **others}
        return self._own({key: held for key, held in message.items() if held is not None})

    def _part(self, part: Any, name: str) -> Any:
        """A part of a message, its text under the key that chat templates know."""
        held = {"type": "text", "text": part} if isinstance(part, str) else part
        if not isinstance(held, Mapping):
            self.fail(name, f"a part of a message is {_shown(part)}", "an object with its type, or text")
        if held.get("type") != "text":
            return held
        said = next(
            (held[key] for key in ("text", "value", "content") if isinstance(held.get(key), str)), None
        )
        if said is None:
            self.fail(name, f"found the part {_shown(part)}", "a text in a part of the type text")
        return {"type": "text", "text": said}

    def _own(self, value: Any) -> Any:
        """The value without the keys that only the table of all rows has given it."""
        return without_nulls(value) if self.merged else value

    def _calls(self, text: str, name: str) -> list[dict[str, Any]]:
        """The calls of tools that a turn of the speaker ``function_call`` spells."""
        calls = spelled(text)
        calls = calls if isinstance(calls, list) else [calls]
        if not all(isinstance(call, Mapping) and "name" in call for call in calls):
            self.fail(name, f"found the function_call {_shown(text)}", "an object with name and arguments")
        return [{"type": "function", "function": dict(call)} for call in calls]

    def not_empty(self, content: Content, name: str) -> None:
        if isinstance(content, tuple) and all(turn["role"] != "assistant" for turn in content):
            self.fail(name, "the conversation has no assistant message", "a message of the assistant")
        if isinstance(content, tuple) and content[-1]["role"] != "assistant":
            found = f"the conversation ends with a turn of {content[-1]['role']}"
            self.fail(name, found, "the assistant's turn at its end")
        if not says_something(content):
            self.fail(name, "the response is empty", "a response that says something")

    def number(self, name: str, expected: str = "a number") -> float:
        return self.as_number(self.require(name, expected), name, expected)

    def as_number(self, value: Any, name: str, expected: str = "a number") -> float:
        """A finite number; text that spells one counts."""
        number = number_of(value)
        if number is None:
            self.fail(name, f"found {_shown(value)}", f"{expected}, finite")
        return number

    def list(self, name: str, expected: str) -> list[Any]:
        """A list, or text that spells one, or a table of its objects."""
        value = self.require(name, expected)
        held = as_list(value)
        if not held:
            self.fail(name, f"found {_shown(value)}", expected)
        return held

    def tools(self) -> tuple[Mapping[str, Any], ...]:
        name = self.first(TOOLS)
        if name is None or is_blank(self.get(name)) or self.look(name) in ("[]", "null"):
            return ()
        tools = self.look(name)
        tools = spelled(tools) if isinstance(tools, str) else tools
        tools = [tools] if isinstance(tools, Mapping) else self.list(name, "a list of JSON schemas")
        try:
            tools = [json.loads(tool) if isinstance(tool, str) else tool for tool in tools]
        except json.JSONDecodeError:
            self.fail(name, f"found {_shown(tools)}, which is no JSON", "a list of JSON schemas")
        if not all(isinstance(tool, dict) for tool in tools):
            self.fail(name, f"found {_shown(tools)}", "a list of JSON schemas, one object per tool")
        return tuple(map(self._own, tools))

    def template_options(self) -> Mapping[str, Any]:
        options = self.get("chat_template_kwargs") or {}
        options = spelled(options) if isinstance(options, str) else options
        if not isinstance(options, Mapping):
            self.fail("chat_template_kwargs", f"found {_shown(options)}", "an object of options")
        return self._own(options)

    def truth(self, name: str, value: Any) -> bool:
        said = value.strip().lower() if isinstance(value, str) else value
        if isinstance(said, str):
            number = number_of(said)
            said = said if number is None else number
        if said in TRUE:
            return True
        if said in FALSE:
            return False
        expected = "true or false (1 or 0)"
        if number_of(value) is None:
            self.fail(name, f"found {value!r}", expected)
        expected += "; other numbers can be changed with map (data.map)"
        self.contradict(name, f"found {value!r}, so that a 1 may not mean true either", expected)

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


def number_of(value: Any) -> float | None:
    """The finite number that a value is or spells, None for any other; a truth value is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def look(values: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of a field of an object at any depth, as ``question.text``; None if there is
    none."""
    if name in values:
        return values[name]
    outer, _, inner = name.partition(".")
    held = values.get(outer)
    if isinstance(held, str) and inner:
        held = spelled(held)
    return look(held, inner) if inner and isinstance(held, Mapping) else None


def spelled(text: str) -> Any:
    """The list or object that JSON, Python or NumPy spells, None for any other text."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # NumPy writes no commas between objects, and no line break within them as it is.
    text = re.sub(r"\}[^\S\n]*\n\s*\{", "}, {", text.strip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, list | dict) else None


def rows_of(table: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The objects that a table holds, an object of lists of one length, as Arrow writes lists of objects;
    None for any other object."""
    columns = list(table.values())
    lists = bool(columns) and all(isinstance(column, list | tuple) for column in columns)
    if not lists or not columns[0] or len({len(column) for column in columns}) > 1:
        return None
    return [dict(zip(table, items, strict=True)) for items in zip(*columns, strict=True)]


def as_list(value: Any) -> list[Any] | None:
    """A list as it is, or the one that a text spells or a table holds; None for any other value."""
    value = spelled(value) if isinstance(value, str) else value
    value = rows_of(value) if isinstance(value, Mapping) else value
    return list(value) if isinstance(value, list | tuple) else None


def _as_spelled(values: Mapping[str, Any], names: Collection[str]) -> Mapping[str, Any]:
    """The fields, with the list or the object for a text that spells one in a column of these names."""
    held = {
        name: inner
        for name in names
        if isinstance(text := values.get(name), str) and (inner := spelled(text)) is not None
    }
    return {**values, **held} if held else values


def _objects(values: Iterable[Any]) -> Iterator[Any]:
    """The items of the lists among the values, and the other values; text that spells one counts."""
    for value in values:
        held = spelled(value) if isinstance(value, str) else value
        if isinstance(held, list | tuple):
            yield from held
        else:
            yield held


def _spelling(text: str) -> str:
    """The value that a text spells and may have been meant as, in words; empty where it is but text."""
    if MESSAGES.match(text):
        return "messages"
    value = spelled(text)
    if value and are_messages(value):
        return "messages"
    if isinstance(value, Mapping):
        return "an object" if value else ""
    texts = isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    return "a list" if texts else ""


def are_messages(value: Any) -> bool:
    """Whether a value is a message, or a list of them and nothing else."""
    turns = value if isinstance(value, list | tuple) else [value]
    return bool(turns) and all(isinstance(turn, Mapping) and _is_message(turn) for turn in turns)


def exchanged(turns: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The turns, as messages where each object holds a turn of the user and its answer; the last may have
    none."""
    for user, assistant in EXCHANGES:
        if turns and all(isinstance(turn.get(user), str) and not _is_message(turn) for turn in turns):
            spoken = (
                {"role": role, "content": turn[key]}
                for turn in turns
                for role, key in (("system", "system"), ("user", user), ("assistant", assistant))
                if not is_blank(turn.get(key))
            )
            return list(spoken)
    return turns


def _is_message(turn: Mapping[str, Any]) -> bool:
    """Whether an object is a message: it has a speaker, and says something or calls a tool. ``text`` is what
    known speakers say: it may be an answer that comes from somewhere."""
    speaker = first_of(turn, SPEAKER)
    if speaker is None:
        return False
    known = str(turn[speaker]).lower() in ROLES
    return any(key in turn for key in ("content", "value", "tool_calls")) or ("text" in turn and known)


def without_nulls(value: Any) -> Any:
    """The value without the keys of its objects, at any depth, that are null: Arrow gives every object of a
    column the keys of all."""
    if isinstance(value, Mapping):
        return {key: without_nulls(held) for key, held in value.items() if held is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(held) for held in value]
    return value


def is_blank(value: Any) -> bool:
    """Whether a field holds nothing: null, blank text, or an empty list or object."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | tuple | dict) and not value)


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
