"""The names under which rows keep prompts, responses and labels, and how a source writes them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prefero.data.files import Row
from prefero.data.formats.candidates import rivals
from prefero.data.formats.fields import (
    MESSAGES,
    ROLES,
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
    "conversation_input",
    "dialogue",
    "dialog",
)
"""The fields that hold a prompt, the first that says something before the others."""

PARTS = ("messages", "conversations", "conversation", "full_text")
"""What an object in the field of a prompt may hold the prompt under."""

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

SINGLE = ("orig_response", "completion", "response", "output", "answer", "generation")
"""The fields of a response that stands alone."""

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
    ("bon_best", "loser_list"),
)
"""The names of a better and a worse response, ``_`` for any mark between words. ``winner`` and ``chosen`` may
be who wrote ``winner_response`` and ``chosen_response``."""

RESPONSES = (
    "response",
    "completion",
    "answer",
    "text",
    "content",
    "output",
    "generation",
    "messages",
    "message",
)
"""The keys of an object under which it holds a response."""

SCORES = (
    "score",
    "overall_score",
    "rating",
    "reward",
    "fine-grained_score",
    "pm_score",
    "helpfulness",
    "overall_rating",
    "average_rating",
    "avg_rating",
)
SEVERAL = ("list", "responses")
"""The endings of the names of columns with several responses: what their texts spell is a list of some, where
elsewhere it may be an answer."""

RANKS = ("rank", "ranking")
WRITERS = ("model", "policy", "model_name", "llm_name", "writer", "author")

IDS = re.compile(r"(.*_)?(id|ids|idx|index|uid|uuid)", re.IGNORECASE)
"""The keys of an object that tell which response it is."""

ASSISTANTS = {name for name, role in ROLES.items() if role == "assistant"}
"""The assistant, as conversations name it."""

SHORT = 60
"""Characters of a text that may be a word or a name."""

MOST = 0.7
"""The share of the first rows that makes a habit."""


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


def survey(rows: Sequence[Row]) -> Habits:
    """The habits of a source, as its first rows show them."""
    values = [row.fields for row in rows if not row.problem]
    names = list(dict.fromkeys(name for fields in values for name in fields))
    spells = {name for name in names if _mostly_texts(values, name, _spells_messages)}
    listed = {name for name in names if _mostly_texts(values, name, _spells_turns)}
    numbers = {name: found for name in names if (found := _numbers(fields.get(name) for fields in values))}
    words = {name: said for name in names if (said := _words(fields.get(name) for fields in values))}
    compared = rivals(names, Habits(numbers=numbers, words=words))
    pair = pair_names(values)
    sides = pair or (compared[0].names if compared else ())
    if not all(name in spells and _answers(values, name) for name in sides):
        spells -= set(sides)
    prompt = next((name for name in PROMPTS if name in names), None)
    if prompt not in listed or not all(name in listed for name in sides):
        listed = set()
    single = next((name for name in SINGLE if name in names), None)
    answers = sides or ([] if single is None else [single])
    as_objects = {name for name in {*PROMPTS, *answers} & set(names) if _mostly_objects(values, name)}
    if not _answers_in_objects(values, answers):
        as_objects -= set(answers)
    several = (name for name in pair or () if name.endswith(SEVERAL))
    as_objects |= {name for name in several if _mostly_texts(values, name, _spells_turns)}
    main, beside = _prompts(values)
    return Habits(
        conversations=frozenset(spells),
        turn_lists=frozenset(listed & {prompt, *sides}),
        spelled=frozenset(as_objects | {name for name in names if _mostly_lists(values, name)}),
        talks=any(_talks(fields) for fields in values),
        repeats_prompt=bool(sides) and mostly(_repeats(fields, sides) for fields in values),
        prompted=any(not is_blank(look(fields, first_of_prompts(fields) or "")) for fields in values),
        prompt=main,
        beside=beside,
        pair=pair,
        numbers=numbers,
        words=words,
        names=tuple(names),
    )


def _prompts(rows: Sequence[Mapping[str, Any]]) -> tuple[str | None, frozenset[str]]:
    """The field that is the prompt in half of the rows or more, and the other fields of prompts that say
    something in these rows too."""
    named = [(first_of_prompts(values), values) for values in rows]
    said = [(name, values) for name, values in named if not is_blank(look(values, name or ""))]
    counts = Counter(name for name, _ in said)
    main, count = counts.most_common(1)[0] if counts else (None, 0)
    if main is None or 2 * count < len(rows):
        return None, frozenset()
    beside = {
        name
        for own, values in said
        if own == main
        for name in PROMPTS
        if name != main and not is_blank(look(values, name))
    }
    return main, frozenset(beside)


def _mostly_objects(rows: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Whether the texts of a column spell objects that hold a prompt, or else a response."""
    holds = _holds_prompt if name in PROMPTS else _holds_response
    return _mostly_texts(rows, name, lambda text: holds(spelled(text)))


def _holds_prompt(value: Any) -> bool:
    return isinstance(value, Mapping) and any(_is_prompt(part, value.get(part)) for part in PARTS)


def _holds_response(value: Any) -> bool:
    """Whether an object is a response with what is known of it, and holds nothing else: an answer in JSON may
    have such keys as ``answer``, but hardly a score or a writer."""
    if not isinstance(value, Mapping) or are_messages(value) or not all(map(_of_response, value)):
        return False
    known = first_of(value, (*SCORES, *RANKS, *WRITERS)) is not None
    keys = RESPONSES if known else ("text", "content", "messages", "message")
    said = value.get(first_of(value, keys) or "")
    return isinstance(said, str) or (are_messages(said) and _answered(said))


def _of_response(key: Any) -> bool:
    """Whether a key of an object tells what a response says, how good it is, who wrote it, or which it is."""
    return key in (*RESPONSES, *SCORES, *RANKS, *WRITERS, "annotations") or bool(IDS.fullmatch(str(key)))


def _answered(said: Any) -> bool:
    """Whether the assistant has the last of these messages."""
    last = said[-1] if isinstance(said, list | tuple) else said
    return str(last[first_of(last, SPEAKER) or ""]).lower() in ASSISTANTS


def _answers_in_objects(rows: Iterable[Mapping[str, Any]], sides: Sequence[str]) -> bool:
    """Whether the objects that the responses spell are not themselves the answers: all of the responses spell
    some, nothing that is said before them speaks of JSON or of the keys, and none has its text from there."""
    for values in rows:
        asked = "\n".join(_said_before(values, sides))
        held = (spelled(text) if isinstance(text := values.get(name), str) else text for name in sides)
        for value in (value for value in held if isinstance(value, Mapping)):
            said = value.get(first_of(value, RESPONSES) or "")
            if isinstance(said, str) and said.strip() and said.strip() in asked:
                return False
            if _speaks_of(value, asked):
                return False
    return all(_mostly_objects(rows, name) for name in sides)


def _speaks_of(value: Mapping[str, Any], asked: str) -> bool:
    """Whether a text speaks of JSON or of the keys of an object."""
    words = "|".join(("[^ ]*json[^ ]*", *(re.escape(str(key)) for key in value)))
    return bool(re.search(rf"\b(?:{words})\b", asked, re.IGNORECASE))


def _said_before(values: Mapping[str, Any], sides: Sequence[str]) -> Iterator[str]:
    """The texts of the prompt of a row, its system text, its input and its earlier turns."""
    for name in sorted(TEXTS - set(sides)):
        yield from _texts_in(look(values, name))


def _texts_in(value: Any) -> Iterator[str]:
    """The texts that a value holds, without the keys and the speakers beside them."""
    if isinstance(value, str):
        held = spelled(value)
        if are_messages(held):
            yield from _texts_in(held)
        else:
            yield value
    elif isinstance(value, Mapping):
        speaker = first_of(value, SPEAKER)
        yield from (text for key, inner in value.items() if key != speaker for text in _texts_in(inner))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in _texts_in(item))


def _mostly_lists(rows: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Whether a column holds lists, or objects, of which few are spelled by texts."""
    held = [row[name] for row in rows if not is_blank(row.get(name))]
    return any(
        any(isinstance(value, kind) for value in held)
        and mostly(isinstance(spelled(v) if isinstance(v, str) else v, kind) for v in held)
        for kind in (list, Mapping)
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
    """The fields with null for what tables write into a cell that has no text, and with lists for the arrays
    that they hold for them."""
    absent = {
        name
        for name, value in values.items()
        if type(value).__name__ == "NAType"  # of pandas, which is not needed here
        or (name in TEXTS and isinstance(value, float) and math.isnan(value))
    }
    arrays = {name: _as_lists(value) for name, value in values.items() if isinstance(value, np.ndarray)}
    changed = dict.fromkeys(absent) | arrays
    return {**values, **changed} if changed else values


def _as_lists(value: Any) -> Any:
    """An array of one axis as the list that it stands for, also in the objects of a list; an image has more
    axes."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return [_as_lists(item) for item in value.tolist()]
    return {key: _as_lists(held) for key, held in value.items()} if isinstance(value, dict) else value


def mostly(told: Iterable[bool]) -> bool:
    """Whether a source's rows have a habit, a few of them left aside."""
    rows = list(told)
    return sum(rows) > MOST * len(rows)


def prompt_text(values: Mapping[str, Any]) -> str | None:
    """The prompt of a row if it is text."""
    name = first_of_prompts(values)
    value = None if name is None else look(values, name)
    return value if isinstance(value, str) else None


def first_of_prompts(values: Mapping[str, Any]) -> str | None:
    """The field that holds the prompt: the first that says something, else the first of all. An object may
    hold it, such as ``input.messages``."""
    held = [name for field in PROMPTS for name in _holding(values, field)]
    return next((name for name in held if not is_blank(look(values, name))), next(iter(held), None))


def _holding(values: Mapping[str, Any], field: str) -> list[str]:
    """The field, or what it holds, as far as it may be a prompt."""
    value = look(values, field)
    if isinstance(value, Mapping) and not are_messages(value):
        return [f"{field}.{part}" for part in PARTS if "." not in field and _is_prompt(part, value.get(part))]
    return [field] if value is not None and (field != HISTORY or isinstance(value, str)) else []


def _is_prompt(part: str, value: Any) -> bool:
    return isinstance(value, str) if part == "full_text" else are_messages(value)


def _mostly_texts(rows: Iterable[Mapping[str, Any]], name: str, holds: Any) -> bool:
    texts = [row[name] for row in rows if not is_blank(row.get(name))]
    return all(isinstance(text, str) for text in texts) and mostly(map(holds, texts))


def _spells_messages(text: str) -> bool:
    return bool(MESSAGES.match(text)) or are_messages(spelled(text))


def _spells_turns(text: str) -> bool:
    value = spelled(text)
    turns = value if isinstance(value, list) else []
    said = [turn for turn in turns if turn is not None]  # a turn that says nothing is the mistake of one row
    return bool(said) and all(isinstance(turn, str) for turn in said)


def _answers(rows: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Whether the conversations that a column spells are those of its rows, and not answers that happen to be
    JSON: beside a plain prompt they contain it, or only the assistant speaks; a single message is no answer
    to what speaks of JSON or of its keys."""
    for row in rows:
        prompt, spelling = prompt_text(row), row.get(name)
        message = spelled(spelling) if isinstance(spelling, str) else None
        if isinstance(message, Mapping) and _speaks_of(message, "\n".join(_said_before(row, [name]))):
            return False
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
