"""Layouts of pairs and of labelled responses.

Rows with a better and a worse response: TRL's, whose prompt is given or implied, and the same under other
names; Anthropic's transcripts of whole conversations; reasoning steps. Rows with one response alone that is
labelled or scored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefero.data.examples import Example, Response, Span, Text
from prefero.data.formats.candidates import named_elsewhere
from prefero.data.formats.conversations import (
    TURN,
    Messages,
    are_texts,
    as_user,
    read_prompt,
    read_sides,
    says_all,
    split_transcript,
    unknown_texts,
    with_responses,
    with_system,
)
from prefero.data.formats.fields import Fields, Layout, are_messages, first_of, spelled
from prefero.data.formats.names import (
    CONVERSATIONS,
    RESPONSES,
    SINGLE,
    first_of_prompts,
    pair_names,
    pairs_named,
)
from prefero.data.formats.responses import as_response, refuse_equal, refuse_silence
from prefero.data.schema import SCHEMA

PAIR = ("chosen", "rejected")

LABELS = ("label", "kto_tag", "is_safe", "is_good", "desirable")
SCORES = tuple(name for name in SCHEMA["score"].fields if "/" not in name)
SCORED = (*SCORES, *SCHEMA["rank"].fields)
"""Fields that say more than the order of responses."""

PLACES = ([0, 1], [1, 0], [1, 2], [2, 1])
"""Sides that may be the places of two responses."""

STEP = re.compile(r"(?:^\s*|\n[^\S\n]*)step\s*\d+\s*[:.]", re.IGNORECASE)


def read_pair(fields: Fields) -> Example:
    """A row with a better and a worse response.

    Without a prompt field, or where both sides repeat it, the prompt is what the two sides share: the common
    messages, or for text the common beginning up to the last mark of the assistant, or else to the last white
    space, so that no word is split. Where a side is a list of responses and the prompt is not, all of these
    are labelled candidates. A whole conversation beside a text is the better one: the text would stand in the
    place of its last turn.
    """
    names = fields.habits.pair
    if names is None or not any(name in fields.values for name in names):
        names = pair_names([fields.values]) or PAIR
    _refuse_marks(fields, names)
    prompt = first_of_prompts(fields.values)
    if any(_are_responses(fields.look(n)) for n in names) and not are_texts(fields.look(prompt or "")):
        return _labelled_candidates(fields, names)
    chosen, rejected = read_sides(fields, names, PAIR)
    if names[0] in CONVERSATIONS and isinstance(chosen.content, tuple) and isinstance(rejected.content, str):
        answer = {"role": "assistant", "content": rejected.content}
        rejected = replace(rejected, content=(*chosen.content[:-1], answer))
    refuse_silence(fields, names, (chosen, rejected))
    if chosen.content == rejected.content:
        refuse_equal(fields, names)
    example = with_responses(fields, names, (chosen, rejected), implied=True)
    _refuse_places(fields, names)
    return example


def _refuse_places(fields: Fields, names: Sequence[str]) -> None:
    """Raises :class:`PreferoError` where the sides are numbers of places, and texts that nothing is made of
    may be what stands there."""
    sides, texts = [fields.look(name) for name in names], unknown_texts(fields)
    if texts and not any(isinstance(side, str) for side in sides) and sides in PLACES:
        fields.fail(
            names[0],
            f"found {sides[0]}, which may be the place of a response; texts that are not read: "
            f"{', '.join(texts)}",
            "the response itself; make such rows with map (data.map)",
        )


def _refuse_marks(fields: Fields, names: Sequence[str]) -> None:
    """Raises :class:`PreferoError` where both sides name responses that stand elsewhere in the row."""
    sides = [fields.look(name) for name in names]
    others = {name: value for name, value in fields.values.items() if name not in names}
    if where := named_elsewhere(others, sides):
        fields.fail(
            names[0],
            f"found {str(sides[0]).strip()!r}, which is no response but says where one stands, in {where}",
            "the response itself; make such rows with map (data.map)",
        )


def _labelled_candidates(fields: Fields, names: Sequence[str]) -> Example:
    responses, places = [], []
    for name, label in zip(names, (1.0, -1.0), strict=True):
        held = fields.require(name, "a response, or a list of some")
        items = held if isinstance(held, list | tuple) else [held]
        if name in fields.spelled:
            fields.note(f"{name} is a text that spells a list, whose texts are read as responses")
        for place, item in enumerate(items):
            places.append(f"{name}[{place}]")
            response = as_response(fields, item, places[-1])
            responses.append(replace(response, columns={**response.columns, "label": label}))
    refuse_silence(fields, places, responses)
    better, worse = ([r.content for r in responses if r.columns["label"] == label] for label in (1.0, -1.0))
    if any(content in worse for content in better):
        refuse_equal(fields, names)
    if len(responses) == 2:
        responses = [
            replace(r, role=role, columns={n: v for n, v in r.columns.items() if n != "label"})
            for r, role in zip(responses, PAIR, strict=True)
        ]
    return with_responses(fields, places, responses)


def _are_responses(value: Any) -> bool:
    """Whether a value is a list of responses, texts or objects that hold one; ``content`` alone is a message
    without its role."""
    keys = [key for key in RESPONSES if key != "content"]
    objects = isinstance(value, list | tuple) and all(
        isinstance(item, Mapping) and not are_messages(item) and first_of(item, keys) for item in value
    )
    return are_texts(value) or (objects and bool(value))


def read_output_pair(fields: Fields) -> Example:
    """LLaMA-Factory's older pairs: the first of two outputs is the better one."""
    texts = fields.list("output", "two texts, the better one first")
    if len(texts) != 2 or not are_texts(texts):
        fields.fail("output", f"{len(texts)} items", "two texts, the better one first")
    if scored := fields.first(SCORED):
        fields.fail(
            "output",
            f"{scored} stands beside it",
            "two texts alone; --columns responses=output reads both",
        )
    names = ("output[0]", "output[1]")
    responses = [Response(text, role) for text, role in zip(texts, PAIR, strict=True)]
    refuse_silence(fields, names, responses)
    if texts[0] == texts[1]:
        refuse_equal(fields, names)
    return with_responses(fields, names, responses)


def read_labelled(fields: Fields) -> Example:
    """Unpaired rows: a prompt, a response, and whether it is good (as TRL has it) or its score. The response
    may be the last turn of a conversation."""
    name = fields.first(SINGLE)
    if name is None and (name := fields.first(CONVERSATIONS)):
        example = _last_turn(fields, name)
    else:
        name = name or SINGLE[0]
        responses = read_sides(fields, [name], [None])
        refuse_silence(fields, [name], responses)
        example = with_responses(fields, [name], responses)
    label = fields.first(LABELS)
    if label is None and fields.first((*SCORES, "orig_score")):
        if "orig_score" in fields:
            score = {"score": fields.number("orig_score")}
            return replace(example, responses=(replace(example.responses[0], columns=score),))
        return example
    label = label or LABELS[0]
    good = fields.truth(label, fields.require(label, "true or false, or a score"))
    response = replace(example.responses[0], columns={"label": 1.0 if good else -1.0})
    return replace(example, responses=(response,))


def _last_turn(fields: Fields, name: str) -> Example:
    turns = fields.turns(name)
    expected = "a conversation that the assistant ends"
    if isinstance(turns, str) or len(turns) < 2 or turns[-1]["role"] != "assistant":
        fields.fail(name, "the assistant does not have the last of two turns or more", expected)
    fields.not_empty(turns[-1:], name)
    return Example(with_system(fields, turns[:-1]), (Response(turns[-1:]),))


def read_transcripts(fields: Fields) -> Example:
    chosen, chosen_prompt = _split(fields, "chosen")
    rejected, rejected_prompt = _split(fields, "rejected")
    if (chosen, chosen_prompt) == (rejected, rejected_prompt):
        refuse_equal(fields)
    name, given = first_of_prompts(fields.values), read_prompt(fields)
    if name and given and not _contains(chosen_prompt, given):
        fields.fail(name, "chosen does not contain it", "a prompt that stands in both transcripts")
    own = rejected_prompt if rejected_prompt != chosen_prompt else None
    return Example(
        with_system(fields, chosen_prompt),
        (Response(chosen, "chosen"), Response(rejected, "rejected", prompt=own)),
    )


def _contains(conversation: Messages, prompt: Text) -> bool:
    if isinstance(prompt, str) and TURN.search(f"\n\n{prompt.lstrip()}"):
        prompt, rest = split_transcript(f"\n\n{prompt.strip()}")
        prompt = prompt if not rest.strip() else (*prompt, {"role": "user", "content": rest})
    return says_all(conversation, as_user(prompt))


def _split(fields: Fields, name: str) -> tuple[str, Messages]:
    expected = "a transcript of \\n\\nHuman: and \\n\\nAssistant: turns that the assistant ends"
    transcript = fields.text(name, expected)
    if transcript.startswith("Human:"):
        transcript = f"\n\n{transcript}"
    speakers = TURN.findall(transcript)
    if len(speakers) < 2 or speakers[-1] != "Assistant":
        last = f"its last turn is {speakers[-1]}'s" if speakers else "it has no such turn"
        fields.fail(name, last, expected)
    turns, response = split_transcript(transcript)
    return response, turns


def _holds_transcripts(specimen: Mapping[str, Any]) -> bool:
    sides = [specimen[name] for name in PAIR if name in specimen]
    marked = all(isinstance(side, str) and "\n\nAssistant:" in side and "Human:" in side for side in sides)
    if first_of_prompts(specimen) is None:
        return marked
    return marked and all(side.lstrip().startswith("Human:") for side in sides)


def _is_two_texts(value: Any) -> bool:
    value = spelled(value) if isinstance(value, str) else value
    return are_texts(value) and len(value) == 2


def read_steps(fields: Fields) -> Example:
    """The prompt is the question and the steps taken so far, in the assistant's unfinished turn. A step does
    not end an answer, so neither response is given an end token."""
    taken = fields.text("initial_reason_steps") if fields.get("initial_reason_steps") else ""
    chosen, rejected = (fields.text(name) for name in PAIR)
    for text, name in zip((chosen, rejected), PAIR, strict=True):
        fields.not_empty(text, name)
    if chosen == rejected:
        refuse_equal(fields)
    prompt: Messages = ({"role": "user", "content": fields.text("prompt")},)
    if taken:
        prompt = (*prompt, {"role": "assistant", "content": taken})
    open_step = bool(STEP.search(taken)) and not STEP.match(chosen)
    number = len(STEP.findall(taken)) - open_step + 1
    return Example(
        prompt,
        tuple(
            Response(text, role, spans=(Span(0, len(text), "step", number),), ended=False)
            for text, role in ((chosen, "chosen"), (rejected, "rejected"))
        ),
        {"error_step": number},
    )


STEPS = Layout(
    "steps",
    "prompt, initial_reason_steps, chosen, rejected",
    read_steps,
    fields=("initial_reason_steps", "chosen|rejected"),
)
TRANSCRIPTS = Layout(
    "transcripts",
    "chosen, rejected: whole \\n\\nHuman: … \\n\\nAssistant: transcripts",
    read_transcripts,
    fields=("chosen|rejected",),
    holds=_holds_transcripts,
)
LABELLED = Layout(
    "unpaired",
    "prompt, completion (or response, output), or messages; and label, kto_tag, is_safe or score",
    read_labelled,
    fields=("|".join((*SINGLE, *CONVERSATIONS)), "|".join((*LABELS, *SCORES, "orig_score"))),
    without="chosen|rejected",
)
PAIRS = Layout(
    "pairs",
    "chosen, rejected (or winner, loser; preferred_output, non_preferred_output; …) and, unless the two "
    "share it, prompt",
    read_pair,
    holds=lambda specimen: bool(pairs_named(specimen)),
)
OUTPUT_PAIRS = Layout(
    "output_pairs",
    "instruction, input, output: [better, worse]",
    read_output_pair,
    fields=("output",),
    holds=lambda specimen: _is_two_texts(specimen["output"]),
)
