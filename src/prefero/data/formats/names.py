"""The names under which rows keep prompts, responses and labels, and how a source writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefero.data.files import Row
from prefero.data.formats.fields import (
    MESSAGES,
    SAID,
    SPEAKER,
    Habits,
    are_messages,
    first_of,
    is_blank,
    look,
    number_of,
    spelled,
)

PROMPTS = (
    "prompt",
    "orig_instruction",
    "question",
    "instruction",
    "query",
    "input",
    "input.messages",
    "question.full_text",
    "context",
    "messages",
    "conversations",
    "conversation",
    "trajectory",
    "history",
    "post",
    "info.post",
    "info.article",
    "article",
    "user_prompt",
    "user_input",
    "problem",
    "question_body",
    "context_messages",
    "dialogue",
    "dialog",
)
"""The fields that hold a prompt, the first that says something before the others."""

OPTIONAL_INPUT = {"instruction": ("input", "context"), "prompt": ("input",), "question": ("input",)}
"""Fields whose text stands below the prompt of a field, behind an empty line."""

SYSTEMS = ("system", "system_prompt", "system_message", "sys_prompt")
HISTORY = "history"

TEXTS = frozenset((*PROMPTS, *SYSTEMS, *(name for names in OPTIONAL_INPUT.values() for name in names)))
"""The fields of a text that a row may lack."""

NOTHING = ("nan", "none", "null", "n/a", "<na>", "<noinput>")
"""The words, in small letters, that tables write for nothing."""

CONVERSATIONS = ("messages", "conversations", "conversation")
"""Fields that may hold a response too, as the last turn."""

_STEMS = (
    "response",
    "responses",
    "answer",
    "output",
    "completion",
    "generation",
    "text",
    "message",
    "messages",
    "conversation",
    "conversations",
    "summary",
    "reply",
    "resp",
    "edited_response",
)
_BETTER_WORSE = (
    ("chosen", "rejected"),
    ("winner", "loser"),
    ("winning", "losing"),
    ("win", "lose"),
    ("preferred", "non_preferred"),
    ("preferred", "dispreferred"),
    ("preferred", "rejected"),
    ("accepted", "rejected"),
    ("accept", "reject"),
    ("chosen", "reject"),
    ("selected", "rejected"),
    ("better", "worse"),
    ("best", "worst"),
    ("good", "bad"),
    ("positive", "negative"),
    ("pos", "neg"),
)
PAIR_NAMES = (
    _BETTER_WORSE[0],
    *((f"{better}_{stem}", f"{worse}_{stem}") for better, worse in _BETTER_WORSE for stem in _STEMS),
    *((f"{stem}_{better}", f"{stem}_{worse}") for better, worse in _BETTER_WORSE for stem in _STEMS),
    ("response_j", "response_k"),
    ("response_w", "response_l"),
    ("y_w", "y_l"),
    *_BETTER_WORSE[1:],
    ("messages", "rejected_messages"),
    ("messages", "rejected_response"),
    ("conversations", "rejected_conversations"),
    ("conversation", "rejected_conversation"),
    ("response", "rejected_response"),
    ("edited_response", "original_response"),
)
"""The names of a better and a worse response, ``_`` for any mark between words. ``winner`` and ``chosen`` may
be who wrote ``winner_response`` and ``chosen_response``."""

_SIDE_STEMS = (
    "(?:response|answer|output|completion|generation|reply|summary|text|candidate|conversation|human_ref)s?"
)
SIDES = (
    re.compile(rf"((?:orig_)?{_SIDE_STEMS}[ _-]?(?:(?:model|assistant)_)?)([012abAB])((?:_body|_text)?)"),
    re.compile(rf"((?:(?:model|assistant)_)?)([012abAB])([ _-]{_SIDE_STEMS})"),
)
"""The name of one of two responses that are compared, told apart by a letter or a number."""

NUMBERED = re.compile(rf"({_SIDE_STEMS}[ _-]?)([0-9]|[a-jA-J])()")
"""The name of one of several responses."""

SHORT = 60
"""Characters of a text that may be a word or a name."""

MOST = 0.7
"""The share of the first rows that makes a habit."""

MARKS = (("1", "2"), ("0", "1"), ("a", "b"), ("A", "B"))

BOOKKEEPING = re.compile(
    r"(.*_)?(id|ids|idx|index|uid|uuid|hash|source|sources|dataset|subset|split|model|models|lang|language|"
    r"category|categories|domain|type|date|url|author|subreddit|license|version|key|name|title)",
    re.IGNORECASE,
)
"""Fields that tell about a row, and hold none of its texts."""


def pairs_named(values: Iterable[str]) -> list[tuple[str, str]]:
    """The fields that may hold the better and the worse response, the usual names first: both are there, or
    one of chosen and rejected alone."""
    own = {re.sub(r"[ -]", "_", str(name)): str(name) for name in values}
    named: dict[str, tuple[str, str]] = {}
    for better, worse in PAIR_NAMES:
        if better in own and worse in own:
            named.setdefault(worse, (own[better], own[worse]))
    return list(named.values()) or [PAIR_NAMES[0] for name in PAIR_NAMES[0] if name in own][:1]


def pair_names(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """The fields of the better and the worse response in these rows: of the first such pair, and others whose
    names begin with its own, the one that says most, as they may name writers or hold parts."""
    named = pairs_named(dict.fromkeys(name for values in rows for name in values))
    named = [pair for pair in named if all(own in name for own, name in zip(named[0], pair, strict=True))]

    def length(pair: tuple[str, str]) -> int:
        held = (values.get(name) for values in rows for name in pair)
        return sum(len(str(value)) for value in held if not is_blank(value))

    return max(named, key=length, default=None)


def compared_names(values: Iterable[str]) -> tuple[str, str, tuple[str, str]] | None:
    """The fields of two responses that are compared, and the marks that tell them apart; None where there are
    three or more."""
    names = list(map(str, values))
    for first, second in MARKS:
        for found in (pattern.fullmatch(name) for pattern in SIDES for name in names):
            if found and found[2] == first and (other := f"{found[1]}{second}{found[3]}") in names:
                third = f"{found[1]}{chr(ord(second) + 1)}{found[3]}"
                return None if third in names else (found[0], other, (first, second))
    return None


def numbered_names(values: Iterable[str]) -> tuple[str, ...]:
    """The fields of three or more responses that are told apart by a number or a letter, in their order."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name in map(str, values):
        if match := NUMBERED.fullmatch(name):
            found.setdefault((match[1], match[3]), []).append((match[2], name))
    return next((tuple(name for _, name in sorted(names)) for names in found.values() if len(names) > 2), ())


def survey(rows: Sequence[Row]) -> Habits:
    """The habits of a source, as its first rows show them."""
    values = [row.fields for row in rows if not row.problem]
    names = list(dict.fromkeys(name for fields in values for name in fields))
    spells = {name for name in names if _mostly_texts(values, name, _spells_messages)}
    listed = {name for name in names if _mostly_texts(values, name, _spells_turns)}
    compared = compared_names(names)
    pair = pair_names(values)
    sides = pair or (compared and compared[:2]) or numbered_names(names)
    if not all(name in spells and _answers(values, name) for name in sides):
        spells -= set(sides)
    prompt = next((name for name in PROMPTS if name in names), None)
    if prompt not in listed or not all(name in listed for name in sides):
        listed = set()
    return Habits(
        frozenset(spells),
        frozenset(listed & {prompt, *sides}),
        any(_talks(fields) for fields in values),
        bool(sides) and _mostly(_repeats(fields, sides) for fields in values),
        any(not is_blank(look(fields, first_of_prompts(fields) or "")) for fields in values),
        pair,
        {name: numbers for name in names if (numbers := _numbers(fields.get(name) for fields in values))},
        {name: words for name in names if (words := _words(fields.get(name) for fields in values))},
    )


def _numbers(values: Iterable[Any]) -> frozenset[float]:
    """The finite numbers among the values; text that spells one counts."""
    return frozenset(number for value in values if (number := number_of(value)) is not None)


def _words(values: Iterable[Any]) -> frozenset[str]:
    """The short texts among the values that spell no number."""
    return frozenset(
        value
        for value in values
        if isinstance(value, str) and len(value) <= SHORT and not is_blank(value) and number_of(value) is None
    )


def is_nothing(value: Any) -> bool:
    """Whether a text is one of the words for nothing."""
    return isinstance(value, str) and value.strip().lower() in NOTHING


def without_nothing(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields with null for what tables write into a cell that has no text."""
    absent = {
        name for name in TEXTS & set(values) if isinstance(value := values[name], float) and math.isnan(value)
    }
    return {name: None if name in absent else value for name, value in values.items()} if absent else values


def _mostly(told: Iterable[bool]) -> bool:
    """Whether a source's rows have a habit, a few of them left aside."""
    rows = list(told)
    return sum(rows) > MOST * len(rows)


def prompt_text(values: Mapping[str, Any]) -> str | None:
    """The prompt of a row if it is text."""
    name = first_of_prompts(values)
    value = None if name is None else look(values, name)
    return value if isinstance(value, str) else None


def first_of_prompts(values: Mapping[str, Any]) -> str | None:
    """The field that holds the prompt: the first that says something, else the first of all."""
    held = {name: value for name in PROMPTS if (value := look(values, name)) is not None}
    held = {
        name: value
        for name, value in held.items()
        if (are_messages(value) if isinstance(value, Mapping) else name != HISTORY or isinstance(value, str))
    }
    return next((name for name, value in held.items() if not is_blank(value)), next(iter(held), None))


def _mostly_texts(rows: Iterable[Mapping[str, Any]], name: str, holds: Any) -> bool:
    texts = [row[name] for row in rows if not is_blank(row.get(name))]
    return all(isinstance(text, str) for text in texts) and _mostly(map(holds, texts))


def _spells_messages(text: str) -> bool:
    return bool(MESSAGES.match(text)) or are_messages(spelled(text))


def _spells_turns(text: str) -> bool:
    value = spelled(text)
    turns = value if isinstance(value, list) else []
    said = [turn for turn in turns if turn is not None]  # a turn that says nothing is the mistake of one row
    return bool(said) and all(isinstance(turn, str) for turn in said)


def _answers(rows: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Whether the conversations that a column spells are those of its rows, and not answers that happen to be
    JSON: beside a plain prompt they contain it, or only the assistant speaks."""
    for row in rows:
        prompt, spelling = prompt_text(row), row.get(name)
        if prompt is None or _spells_messages(prompt) or not isinstance(spelling, str):
            continue
        value = spelled(spelling)
        turns = value if isinstance(value, list) else [value]
        if not are_messages(turns):
            continue
        said = [str(turn.get(first_of(turn, SAID) or "")).strip() for turn in turns]
        speakers = {turn[first_of(turn, SPEAKER) or ""] for turn in turns}
        if prompt.strip() not in said and not speakers <= {"assistant", "gpt"}:
            return False
    return True


def _talks(values: Mapping[str, Any]) -> bool:
    history = values.get(HISTORY)
    return any(values.get(name) for name in SYSTEMS) or (bool(history) and not isinstance(history, str))


def _repeats(values: Mapping[str, Any], sides: Sequence[str]) -> bool:
    prompt = (prompt_text(values) or "").strip()
    texts = [values.get(name) for name in sides]
    return bool(prompt) and all(isinstance(text, str) and text.lstrip().startswith(prompt) for text in texts)
