"""Annotations of a row, whatever its layout: columns, spans, votes, writers, other responses and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import inf
from typing import Any

from prefero.data.examples import Example, Response, Span, Text, spoken
from prefero.data.formats.candidates import CHOICES, listed, says_tie
from prefero.data.formats.comparisons import ANNOTATOR, are_votes, read_vote
from prefero.data.formats.fields import Fields, are_messages, is_blank, shows
from prefero.data.formats.images import with_images
from prefero.data.pictures import Picture
from prefero.data.schema import GIVEN, OTHER_PROMPTS, OTHER_RESPONSES, ColumnSpec

SPANS = "a list of objects, each with start, end and what is known of the part"
SPAN_NUMBERS = ("segment", "step")
SPAN_SCORES = ("weight", "score", "image_weight")

WRITERS = (
    ("chosen_model", "rejected_model"),
    ("chosen-model", "rejected-model"),
    ("chosen_source", "rejected_source"),
    ("model_chosen", "model_rejected"),
    ("source_chosen", "source_rejected"),
    ("chosen_policy", "rejected_policy"),
)
"""Fields with the writers of the chosen and the rejected response."""

WRITERS_IN_ORDER = (
    ("model1", "model2"),
    ("model_1", "model_2"),
    ("model_a", "model_b"),
    ("generator_1", "generator_2"),
)
"""Fields with the writers of the first and the second of two compared responses."""

STATES = ("label", "labels", "status", "result", "outcome", "agreement")
"""Fields that may call a pair a tie, in this one word, and may hold anything else."""

BOTH_WRITERS = "cmp_key"
"""PandaLM's field with both: ``bloom-7b_llama-7b``."""


def annotate(example: Example, fields: Fields) -> Example:
    """``example`` with all that a row of any layout may carry: the columns of
    :data:`~prefero.data.schema.SCHEMA` that the layout has not filled, spans, single votes, writers, images
    in prompts, and for a pair the other responses and prompts."""
    if {"chosen", "rejected"} <= set(example.roles):
        example = _with_other_parts(example, fields)
    example = _with_people(with_images(example, fields), fields)
    columns = {**_ties(example, fields), **example.columns}
    responses = list(example.responses)
    for name, spec in GIVEN.items():
        if spec.axes in ("example", "example hidden"):
            field = next((field for field in spec.fields if not is_blank(fields.look(field))), None)
            if name not in columns and field is not None and _tells(fields, field, spec, example):
                columns[name] = convert(fields, field, fields.get(field), spec)
        elif spec.axes == "example response" and not any(name in r.columns for r in responses):
            values = _per_response(fields, spec, responses)
            if values is not None:
                responses = [
                    response
                    if value is None
                    else replace(response, columns={**response.columns, name: value})
                    for response, value in zip(responses, values, strict=True)
                ]
    spans = read_spans(fields, responses)
    if spans is not None:
        responses = [
            replace(response, spans=(*response.spans, *own))
            for response, own in zip(responses, spans, strict=True)
        ]
    example = replace(
        example,
        columns=columns,
        responses=tuple(responses),
        tools=fields.tools(),
        template_options=fields.template_options(),
        origin=fields.origin,
    )
    return replace(example, read=fields.columns_read, unread=fields.unread)


def _tells(fields: Fields, field: str, spec: ColumnSpec, example: Example) -> bool:
    """Whether a column has what its name promises. One of words alone means something else and is not read,
    nor is what is told of the chosen response where none is, nor a preference that counts places from 1."""
    words = isinstance(fields.look(field), str) or field in fields.habits.words
    numbers = fields.habits.numbers.get(field, frozenset())
    if spec in (GIVEN["preference"], GIVEN["strength"]) and "chosen" not in example.roles:
        return False
    if spec is GIVEN["preference"] and 2 in numbers and numbers <= {0, 1, 2}:
        return False
    return spec.dtype == "bool" or bool(numbers) or not words


def _ties(example: Example, fields: Fields) -> dict[str, bool]:
    """Whether the sides of a pair are equally good, where a field of the first rows calls any a tie."""
    if "chosen" not in example.roles or "tie" in example.columns or "tie" in fields:
        return {}
    if "is_tie" in fields:
        return {"tie": fields.truth("is_tie", fields.get("is_tie"))}
    for name in (*CHOICES, *STATES):
        told = fields.look(name)
        says = _is_tie if name in STATES else says_tie
        said = (told, *fields.habits.words.get(name, ()))
        if name not in fields.read and isinstance(told, str) and any(map(says, said)):
            fields.get(name)
            return {"tie": says(told)}
    return {}


def _is_tie(text: str) -> bool:
    return text.strip().lower() == "tie"


def _with_other_parts(example: Example, fields: Fields) -> Example:
    """``example`` with every response and prompt that the row has under a name of
    :data:`~prefero.data.schema.OTHER_RESPONSES` or :data:`~prefero.data.schema.OTHER_PROMPTS`.

    A field of such a name that is no text (``sample`` may count the rows) is something else. Text next to a
    conversation is a message of its own. Responses next to images are images.
    """
    shown = any(isinstance(response.content, Picture) for response in example.responses)
    speaks = not isinstance(example.prompt, str)
    responses = list(example.responses)
    for role, part in OTHER_RESPONSES.items():
        if role in example.roles:
            continue
        if shown and part.field in fields and shows(fields.look(part.field)):
            responses.append(Response(fields.picture(part.field), role))
        elif not shown and _is_text(fields.look(part.field)):
            content = fields.turns(part.field)
            fields.not_empty(content, part.field)
            responses.append(Response(_as_message(content, "assistant") if speaks else content, role))
    prompts = {}
    for view, part in OTHER_PROMPTS.items():
        if _is_text(fields.look(part.field)):
            prompt = fields.turns(part.field)
            prompts[view] = _as_message(prompt, "user") if speaks else prompt
    return replace(example, responses=tuple(responses), prompts=prompts)


def _is_text(value: Any) -> bool:
    """Whether a field holds a text or a conversation."""
    return are_messages(value) or (isinstance(value, str) and bool(value.strip()))


def _as_message(content: Text, role: str) -> Text:
    return ({"role": role, "content": content},) if isinstance(content, str) else content


def _with_people(example: Example, fields: Fields) -> Example:
    """``example`` with the votes of annotators and the writers of its responses. Fields named like annotators
    that hold anything but votes, such as people's names, are left alone."""
    votes = example.votes
    if not votes and example.roles[:2] == ("chosen", "rejected"):
        named = [
            n for n, value in fields.values.items() if ANNOTATOR.fullmatch(str(n)) and not is_blank(value)
        ]
        if _cast_votes(fields, named):
            votes = {name: read_vote(fields, name) for name in named}
    writers = _writers(fields, example)
    if not votes and not writers:
        return example
    written = zip(example.responses, writers, strict=False)
    responses = tuple(replace(response, writer=writer) for response, writer in written)
    return replace(example, votes=votes, responses=(*responses, *example.responses[len(responses) :]))


def _cast_votes(fields: Fields, names: Sequence[str]) -> bool:
    """Whether the first rows have votes in each column, and nothing else; where none is a 2, a 0 may be the
    vote of one who does not agree."""
    numbers = [fields.habits.numbers.get(name, frozenset()) for name in names]
    found = {number for held in numbers for number in held}
    return all(numbers) and are_votes(fields, names) and (2 in found or 0 not in found)


def _writers(fields: Fields, example: Example) -> tuple[str, ...]:
    """The writers of the first two responses, if they are a pair or the only ones and the row names both."""
    if example.roles[:2] == ("chosen", "rejected"):
        for names in WRITERS:
            if all(fields.look(name) for name in names):
                return tuple(str(fields.get(name)) for name in names)
    elif len(example.responses) != 2:
        return ()
    for names in WRITERS_IN_ORDER:
        if all(fields.look(name) for name in names):
            return _as_chosen(example, [str(fields.get(name)) for name in names])
    both = str(fields.look(BOTH_WRITERS) or "").split("_")
    if len(both) == 2 and all(both):
        fields.get(BOTH_WRITERS)
        return _as_chosen(example, both)
    return ()


def _as_chosen(example: Example, writers: Sequence[str]) -> tuple[str, ...]:
    """The writers of two responses in the order of the example."""
    return tuple(writers[::-1] if example.chosen_second else writers)


def _per_response(fields: Fields, spec: ColumnSpec, responses: Sequence[Response]) -> list[Any] | None:
    """A value for each response, None for one besides the pair without any; None if no response has any."""
    roles = tuple(response.role for response in responses)
    names = [name for name in spec.fields if "/" not in name]
    for named in (named for name in names for named in _named_by_role(name, roles)):
        # The score of one response alone tells nothing of how the two compare.
        if sum(f in fields.values for f in named) > 1 and any(not is_blank(fields.look(f)) for f in named):
            expected = f"a value for each of {' and '.join(named)}"
            return [
                None
                if role in OTHER_RESPONSES and f not in fields
                else convert(fields, f, fields.require(f, expected), spec)
                for role, f in zip(roles, named, strict=True)
            ]
    for name in names:
        value = fields.look(name)
        if len(responses) == 1 and not is_blank(value) and not isinstance(value, list):
            return [convert(fields, name, fields.get(name), spec)]
        # A single value for several responses does not say how they compare.
        if not isinstance(value, list | tuple) and not str(value).lstrip().startswith("["):
            continue
        compared = [response for response in responses if response.role not in OTHER_RESPONSES]
        order = _places(fields, compared, name)
        if order is None:
            continue
        values = fields.list(name, "a list with one value per response")
        if len(values) <= max(order) or (None in roles and len(values) != len(compared)):
            fields.fail(name, f"{len(values)} values for {len(compared)} responses", "one value per response")
        read = iter([convert(fields, name, values[place], spec) for place in order])
        return [None if role in OTHER_RESPONSES else next(read) for role in roles]
    return None


def _places(fields: Fields, responses: Sequence[Response], name: str) -> list[int] | None:
    """The places of the responses in a list of values; None where they are not known.

    Beside a list of candidates, of which chosen and rejected are two, the values are the candidates'.
    """
    if responses[0].role is None:
        return list(range(len(responses)))
    values, candidates = fields.look(name), listed(fields.values)
    if not candidates:
        if isinstance(values, list | tuple) and len(values) != len(responses):
            return None
        return list(range(len(responses)))
    texts = ["".join(spoken(response.content)).strip() for response in responses]
    for field, items in candidates.items():
        told = [str(item).strip() for item in items]
        if all(text and text in told for text in texts):
            fields.get(field)
            return [told.index(text) for text in texts]
    return None


@lru_cache
def _named_by_role(name: str, roles: tuple[str | None, ...]) -> tuple[tuple[str, ...], ...]:
    """The ways to write ``name`` once for each role, as ``chosen_score`` and ``rejected_score``."""
    if None in roles:
        return ()
    ways = ("{role}_{name}", "{name}_{role}", "{role}-{name}")
    return tuple(tuple(way.format(role=role, name=name) for role in roles) for way in ways)


def convert(fields: Fields, field: str, value: Any, spec: ColumnSpec) -> Any:
    """A value of the column's type."""
    if spec.axes == "example hidden":
        if not isinstance(value, list | tuple):
            fields.fail(field, f"found {type(value).__name__}", "a list of numbers")
        return tuple(fields.as_number(item, field) for item in value)
    if spec.dtype == "bool":
        return fields.truth(field, value)
    if spec is GIVEN["label"]:
        return 1.0 if fields.truth(field, value) else -1.0
    number = fields.as_number(value, field, f"a number ({spec.meaning})")
    lowest, highest = spec.bounds
    if not lowest <= number <= highest:
        upper = f" and at most {highest:g}" if highest < inf else ""
        fields.fail(field, f"found {value!r}", f"a number of at least {lowest:g}{upper} ({spec.meaning})")
    if spec is GIVEN["preference"] and number < 0.5:
        fields.note(f"{field} is {number:g}: more annotators prefer the rejected response")
    if spec.dtype == "int":
        if number != int(number):
            fields.fail(field, f"found {value!r}", f"a whole number ({spec.meaning})")
        return int(number)
    # Which side is the better one, the sides say; a sign of the strength says it again.
    return abs(number) if spec is GIVEN["strength"] else number


def read_spans(fields: Fields, responses: Sequence[Response]) -> list[tuple[Span, ...]] | None:
    """The spans of each response; None if the row has none."""
    named = [f"{response.role}_spans" for response in responses]
    if any(name in fields for name in named):
        return [
            _spans(fields, name, fields.list(name, SPANS) if fields.look(name) else [], response)
            for name, response in zip(named, responses, strict=True)
        ]
    if not fields.look("spans"):
        return None
    items = fields.list("spans", SPANS)
    if len(responses) == 1:
        return [_spans(fields, "spans", items, responses[0])]
    if len(items) != len(responses):
        fields.fail("spans", f"{len(items)} lists for {len(responses)} responses", "one list per response")
    return [
        _spans(fields, f"spans[{at}]", item or [], response)
        for at, (item, response) in enumerate(zip(items, responses, strict=True))
    ]


def _spans(fields: Fields, name: str, items: Any, response: Response) -> tuple[Span, ...]:
    if not isinstance(items, list | tuple):
        fields.fail(name, f"found {type(items).__name__}", SPANS)
    return tuple(
        span for at, item in enumerate(items) for span in _read(fields, f"{name}[{at}]", item, response)
    )


def _read(fields: Fields, name: str, item: Any, response: Response) -> list[Span]:
    """One object: a span for each number that it has, the scores on all of them."""
    if not isinstance(item, Mapping):
        fields.fail(name, f"found {type(item).__name__}", "an object with start and end")
    start, end = _place(fields, name, item, response)
    scores = {
        key: fields.as_number(item[key], f"{name}.{key}") for key in SPAN_SCORES if item.get(key) is not None
    }
    numbers = {
        key: _whole(fields, f"{name}.{key}", item[key], 1)
        for key in SPAN_NUMBERS
        if item.get(key) is not None
    }
    if not scores and not numbers:
        known = ", ".join((*SPAN_NUMBERS, *SPAN_SCORES))
        fields.fail(name, "nothing is known of the part", f"one of {known}")
    return [Span(start, end, kind, index, scores) for kind, index in (numbers or {"part": 0}).items()]


def _place(fields: Fields, name: str, item: Mapping[str, Any], response: Response) -> tuple[int, int]:
    """Offsets into what the response says."""
    turns = spoken(response.content)
    turn = _whole(fields, f"{name}.turn", item["turn"], 1) if item.get("turn") is not None else 1
    if turn > len(turns):
        fields.fail(f"{name}.turn", f"found {turn}", f"at most {len(turns)}, the turns of the assistant")
    text = turns[turn - 1]
    before = _before(fields, response, text)
    start = _whole(fields, f"{name}.start", item["start"], 0) - before if item.get("start") is not None else 0
    end = _whole(fields, f"{name}.end", item["end"], 0) - before if item.get("end") is not None else len(text)
    if not 0 <= start < end <= len(text):
        fields.fail(
            name,
            f"it reaches from {start + before} to {end + before}",
            f"a part of the response, which reaches from {before} to {before + len(text)}",
        )
    offset = sum(map(len, turns[: turn - 1]))
    return offset + start, offset + end


def _before(fields: Fields, response: Response, text: str) -> int:
    """The length of the prompt that the field repeats before the response."""
    field = fields.look(response.role or "")
    if isinstance(response.content, str) and isinstance(field, str) and field.endswith(text):
        return len(field) - len(text)
    return 0


def _whole(fields: Fields, name: str, value: Any, lowest: int) -> int:
    expected = f"a whole number, at least {lowest}"
    number = fields.as_number(value, name, expected)
    if number != int(number) or number < lowest:
        fields.fail(name, f"found {value!r}", expected)
    return int(number)
