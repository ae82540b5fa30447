"""Names of columns that rows may have been meant to have, for the advice of a refusal."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from prefero.data.formats.conversations import texts_within
from prefero.data.formats.fields import BOOKKEEPING, are_messages, look, number_of, spelled
from prefero.data.formats.names import PROMPTS, first_of_prompts, pairs_named

OWN_FUNCTION = (
    "make other rows of them with a function of your own: --map module:function of prefero preview and "
    "convert, data.map=module:function of training (map=function in Python)."
)
"""What helps where no other names of columns do."""

MOST_SHOWN = 3
"""Suggestions of which one may be chosen; of more, none is a help."""

# fmt: off
ASKING = {
    "prompt", "question", "query", "instruction", "input", "request", "ask", "asked", "enquiry", "inquiry",
    "user", "human", "context", "conversation", "dialogue", "dialog", "message", "history", "post", "article",
    "problem", "task", "turn", "chat",
}
"""Words in the name of a prompt."""

BETTER = {
    "chosen", "preferred", "better", "best", "good", "winner", "winning", "win", "accepted", "accept",
    "selected", "positive", "pos",
}
WORSE = {
    "rejected", "reject", "dispreferred", "unpreferred", "nonpreferred", "worse", "worst", "bad", "loser",
    "losing", "lose", "declined", "discarded", "unchosen", "unselected", "negative", "neg",
}
"""Words in the names of the better and the worse response."""
# fmt: on

IN_FULL = {
    "conv": "conversation",
    "convo": "conversation",
    "resp": "response",
    "ans": "answer",
    "gen": "generation",
    "instruct": "instruction",
    "instr": "instruction",
}
"""Words in names, by their short forms."""

NOT = {"non", "not", "un", "dis", "less"}


def option(columns: Mapping[str, str]) -> str:
    """The option of a command that gives columns these names, as a shell takes it."""
    return f"--columns {shlex.quote(','.join(f'{name}={column}' for name, column in columns.items()))}"


def suggested(values: Mapping[str, Any], read: Callable[[dict[str, str]], dict[str, str] | None]) -> str:
    """The options under which rows can be read, empty where none is known or too many are.

    ``values`` are the fields of a typical row. ``read`` tries to read rows with columns under other names: it
    returns those that are made something of, None if the rows cannot be read.
    """
    places = {str(name): place for place, name in enumerate(values)}

    def place(named: tuple[str, str]) -> tuple[bool, int]:
        name, column = named
        return name not in PROMPTS, places.get(column, places.get(column.partition(".")[0], 0))

    for proposals in _proposals(values):
        tried = (read(columns) for columns in proposals if columns)
        options = list(
            dict.fromkeys(option(dict(sorted(columns.items(), key=place))) for columns in tried if columns)
        )
        if options:
            return " or ".join(options) if len(options) <= MOST_SHOWN else ""
    return ""


def plain(name: str) -> str:
    """A name in small letters, with ``_`` between its words."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).lower()
    return re.sub(r"[\W_]+", "_", words).strip("_")


def _proposals(values: Mapping[str, Any]) -> Iterator[Sequence[dict[str, str]]]:
    """Other names of columns, the likelier ones first, those that are as likely together."""
    for rename in (plain, _singular, _in_full):
        renamed = _unlike(values, rename)
        for sides in ({}, _sides(values)):
            base = _in_roles(values, {n: c for n, c in renamed.items() if c not in sides.values()}) | sides
            yield [base]
            for prompts in _prompts(values, base):
                yield [
                    {"prompt": prompt} | {name: column for name, column in base.items() if column != prompt}
                    for prompt in prompts
                ]
    held = {str(name): spelled(value) if isinstance(value, str) else value for name, value in values.items()}
    objects = {name: value for name, value in held.items() if isinstance(value, Mapping)}
    for outer, value in objects.items():
        yield [{str(inner): f"{outer}.{inner}" for inner in value}]
    # an object that a text spells may be an answer, of which one key is not all
    given = {name: value for name, value in objects.items() if value is values.get(name)}
    keys = dict.fromkeys(str(key) for value in given.values() for key in value)
    yield [
        {outer: f"{outer}.{key}" for outer, value in given.items() if key in value}
        for key in keys
        if not BOOKKEEPING.fullmatch(key)
    ]


def _unlike(values: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, str]:
    """The columns whose names a rule changes, by the names that it gives to one of them alone."""
    named = {str(name): rename(str(name)) for name in values}
    counts = Counter(named.values())
    return {
        own: name for name, own in named.items() if own != name and counts[own] == 1 and own not in values
    }


def _singular(name: str) -> str:
    return "_".join(word.removesuffix("s") for word in plain(name).split("_"))


def _in_full(name: str) -> str:
    return "_".join(IN_FULL.get(word, word) for word in plain(name).split("_"))


def _in_roles(values: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, str]:
    """The columns with the better and the worse response under the names of their roles."""
    columns = {**{str(name): str(name) for name in values}, **renamed}
    for sides in pairs_named(columns):
        if all(side in columns for side in sides) and any(side in renamed for side in sides):
            others = {name: column for name, column in renamed.items() if name not in sides}
            roles = zip(("chosen", "rejected"), sides, strict=True)
            return {role: columns[side] for role, side in roles if columns[side] != role} | others
    return dict(renamed)


def _sides(values: Mapping[str, Any]) -> dict[str, str]:
    """The only two columns whose names speak of the better and of the worse response."""
    told: dict[str, list[str]] = {"chosen": [], "rejected": []}
    for name, value in values.items():
        words = {_word(word) for word in plain(str(name)).split("_")}
        if number_of(value) is not None or isinstance(value, bool) or not words & (BETTER | WORSE):
            continue
        told["rejected" if words & WORSE or words & NOT else "chosen"].append(str(name))
    if any(len(names) != 1 for names in told.values()):
        return {}
    return {role: name for role, (name,) in told.items() if name != role}


def _word(word: str) -> str:
    """The word, or the one of the known ones that it hardly differs from."""
    if word in BETTER | WORSE:
        return word
    return next(iter(get_close_matches(word, sorted(BETTER | WORSE), n=1, cutoff=0.85)), word)


def _prompts(values: Mapping[str, Any], base: Mapping[str, str]) -> Iterator[list[str]]:
    """The columns that may hold the prompt, where none has the name of one: conversations and those whose
    names say so, then other texts."""
    if first_of_prompts({**values, **{name: look(values, column) for name, column in base.items()}}):
        return
    taken = {base.get(side, side) for side in ("chosen", "rejected")}
    names: list[str] = []
    for name, value in values.items():
        held = spelled(value) if isinstance(value, str) else value
        if BOOKKEEPING.fullmatch(str(name)) or number_of(value) is not None:
            continue
        if isinstance(held, Mapping) and not are_messages(held):
            inner = texts_within(str(name), held)
            names += [at for at in inner if name not in taken or at.rpartition(".")[2] in PROMPTS]
        elif str(name) in taken:
            continue
        elif isinstance(value, str) or are_messages(held):
            names.append(str(name))
    likely = [
        name
        for name in names
        if ASKING & {word.removesuffix("s") for word in plain(name).split("_")}
        or are_messages(values.get(name))
    ]
    yield likely
    others = [name for name in names if name not in likely]
    yield [name for name in others if len(str(look(values, name)).split()) > 1] or others
