r"""Anthropic's HH rows: ``chosen`` and ``rejected`` are whole transcripts with ``\n\nHuman:`` turns.

The last turn of the assistant is the response, all before it the prompt. In a few rows of the published files
the two sides part earlier: there each response has its own prompt. An assistant that says nothing in its last
turn was judged by a person all the same: such a response is kept, and is an end token alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prefero.data.examples import Example, Message, Response, Text
from prefero.data.formats.fields import Fields
from prefero.data.formats.layout import Layout
from prefero.data.formats.pairs import refuse_equal

TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


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
    prompt: tuple[Message, ...] = tuple(turns)
    return response, prompt


def _matches(specimen: Mapping[str, Any]) -> bool:
    sides = [specimen.get("chosen"), specimen.get("rejected")]
    known = [side for side in sides if side is not None]
    return (
        bool(known)
        and not any(name in specimen for name in ("prompt", "question", "instruction"))
        and all(isinstance(side, str) and "\n\nAssistant:" in side and "Human:" in side for side in known)
    )


TRANSCRIPTS = Layout(
    "transcripts",
    "chosen, rejected: whole \\n\\nHuman: … \\n\\nAssistant: transcripts",
    _matches,
    read_transcripts,
)
