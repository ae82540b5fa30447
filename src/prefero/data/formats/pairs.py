"""Layouts of pairs and of labelled responses.

Rows with ``chosen`` and ``rejected``: TRL's, whose prompt is given or implied; Anthropic's transcripts of
whole conversations; reasoning steps. Rows with a ``completion`` alone that is labelled or scored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from prefero.data.examples import Example, Message, Response, Span, Text
from prefero.data.formats.fields import Fields, Layout
from prefero.data.schema import SCHEMA

Messages = tuple[Message, ...]
AnyText = TypeVar("AnyText", bound=Text)

PROMPTS = ("prompt", "question", "instruction", "query")
SCORES = tuple(name for name in SCHEMA["score"].fields if "/" not in name)

TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}

STEP = re.compile(r"(?:^|\n)\s*step\s*\d+\s*[:.]", re.IGNORECASE)


def read_pair(fields: Fields) -> Example:
    """A row with ``chosen`` and ``rejected``.

    Without a prompt field, or where both sides repeat it, the prompt is what the two sides share: the common
    messages, or for text the common beginning up to the last white space, so that no word is split.
    """
    chosen, rejected = _sides(fields, fields.turns("chosen"), fields.turns("rejected"))
    name = fields.first(PROMPTS)
    prompt = fields.turns(name) if name else None
    if isinstance(chosen, str) and isinstance(rejected, str):
        prompt, chosen, rejected = _of_texts(fields, prompt, chosen, rejected)
    elif isinstance(chosen, tuple) and isinstance(rejected, tuple):
        prompt, chosen, rejected = _of_messages(prompt, chosen, rejected)
        if not prompt:
            fields.fail("prompt", "missing, and the two sides begin differently", "a prompt that they share")
    else:
        fields.fail("rejected", "one side is text, the other messages", "both sides in the same form")
    fields.not_empty(chosen, "chosen")
    fields.not_empty(rejected, "rejected")
    return Example(prompt, (Response(chosen, "chosen"), Response(rejected, "rejected")))


def _sides(fields: Fields, chosen: AnyText, rejected: AnyText) -> tuple[AnyText, AnyText]:
    """The two sides, which both say something, and not the same."""
    fields.not_empty(chosen, "chosen")
    fields.not_empty(rejected, "rejected")
    if chosen == rejected:
        refuse_equal(fields)
    return chosen, rejected


def refuse_equal(fields: Fields) -> None:
    fields.fail("rejected", "it equals chosen, so the pair prefers nothing", "two different responses")


def _of_texts(fields: Fields, prompt: Text | None, chosen: str, rejected: str) -> tuple[Text, str, str]:
    if prompt is None:
        length = _shared(chosen, rejected)
        while length and not chosen[length - 1].isspace():
            length -= 1
        length = len(chosen[:length].rstrip())
        return chosen[:length], chosen[length:], rejected[length:]
    if isinstance(prompt, str) and fields.values.get("system"):
        prompt = ({"role": "system", "content": fields.text("system")}, {"role": "user", "content": prompt})
    return prompt, chosen, rejected


def _shared(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The length of the common beginning."""
    differing = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differing, min(len(first), len(second)))


def _of_messages(
    prompt: Text | None, chosen: Messages, rejected: Messages
) -> tuple[Text, Messages, Messages]:
    given = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt or ())
    length = len(given)
    if given and chosen[:length] == given and rejected[:length] == given:
        return given, chosen[length:], rejected[length:]
    shared = min(_shared(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    whole_conversations = isinstance(prompt, str) and shared > 0 and chosen[0]["role"] != "assistant"
    if given and not whole_conversations:
        return given, chosen, rejected
    return chosen[:shared], chosen[shared:], rejected[shared:]


def read_labelled(fields: Fields) -> Example:
    """Unpaired rows: ``prompt``, ``completion``, and whether it is good (as TRL has it) or its score."""
    prompt = fields.turns("prompt")
    response = fields.response("completion")
    if isinstance(prompt, str) != isinstance(response.content, str):
        fields.fail("completion", "prompt and completion differ in form", "both as text or both as messages")
    if "label" not in fields and fields.first(SCORES):
        return Example(prompt, (response,))
    good = fields.truth("label", fields.require("label", "true or false, or a score"))
    return Example(prompt, (replace(response, columns={"label": 1.0 if good else -1.0}),))


def read_transcripts(fields: Fields) -> Example:
    chosen, chosen_prompt = _split(fields, "chosen")
    rejected, rejected_prompt = _split(fields, "rejected")
    if (chosen, chosen_prompt) == (rejected, rejected_prompt):
        refuse_equal(fields)
    own = rejected_prompt if rejected_prompt != chosen_prompt else None
    return Example(chosen_prompt, (Response(chosen, "chosen"), Response(rejected, "rejected", prompt=own)))


def _split(fields: Fields, name: str) -> tuple[str, Text]:
    expected = "a transcript of \\n\\nHuman: and \\n\\nAssistant: turns that the assistant ends"
    transcript = fields.text(name, expected)
    opening, *pieces = TURN.split(transcript)
    speakers, texts = pieces[0::2], pieces[1::2]
    if len(speakers) < 2 or speakers[-1] != "Assistant":
        last = f"its last turn is {speakers[-1]}'s" if speakers else "it has no such turn"
        fields.fail(name, last, expected)
    turns: list[dict[str, str]] = [{"role": "system", "content": opening}] if opening.strip() else []
    for speaker, text in zip(speakers[:-1], texts[:-1], strict=True):
        role = ROLES[speaker]
        if turns and turns[-1]["role"] == role:
            # Chat templates want alternating turns; the mark stays, so that plain text renders as it was.
            turns[-1]["content"] += f"\n\n{speaker}:{text}"
        else:
            turns.append({"role": role, "content": text.removeprefix(" ")})
    response = texts[-1]
    if turns[-1]["role"] == "assistant":
        turns[-1]["content"] += "\n\nAssistant:"
    else:
        response = response.removeprefix(" ")
    return response, tuple(turns)


def _holds_transcripts(specimen: Mapping[str, Any]) -> bool:
    sides = [specimen[name] for name in ("chosen", "rejected") if name in specimen]
    return all(isinstance(side, str) and "\n\nAssistant:" in side and "Human:" in side for side in sides)


def read_steps(fields: Fields) -> Example:
    """The prompt is the question and the steps taken so far, in the assistant's unfinished turn. A step does
    not end an answer, so neither response is given an end token."""
    taken = fields.text("initial_reason_steps") if fields.values.get("initial_reason_steps") else ""
    chosen, rejected = _sides(fields, fields.text("chosen"), fields.text("rejected"))
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
    without="prompt|question|instruction",
    holds=_holds_transcripts,
)
LABELLED = Layout(
    "unpaired",
    "prompt, completion, and label or score",
    read_labelled,
    fields=("completion", "|".join(("label", *SCORES))),
)
PAIRS = Layout(
    "pairs",
    "chosen, rejected and, unless the two share it, prompt",
    read_pair,
    fields=("chosen|rejected",),
)
