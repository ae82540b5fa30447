"""Pairs of reasoning steps: two ways to go on after the same first steps (Lai et al., 2024, Step-DPO)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prefero.data.examples import Example, Message, Response, Span
from prefero.data.formats.fields import Fields
from prefero.data.formats.layout import Layout
from prefero.data.formats.pairs import refuse_equal

STEP = re.compile(r"(?:^|\n)\s*step\s*\d+\s*[:.]", re.IGNORECASE)


def read_steps(fields: Fields) -> Example:
    """The prompt is the question and the steps taken so far, which the assistant goes on writing.

    A step is not the end of an answer, so neither response is given an end token.
    """
    taken = fields.values.get("initial_reason_steps") or ""
    if taken:
        taken = fields.text("initial_reason_steps")
    chosen, rejected = fields.text("chosen"), fields.text("rejected")
    fields.not_empty(chosen, "chosen")
    fields.not_empty(rejected, "rejected")
    if chosen == rejected:
        refuse_equal(fields)
    prompt: tuple[Message, ...] = ({"role": "user", "content": fields.text("prompt")},)
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


def _matches(specimen: Mapping[str, Any]) -> bool:
    return "initial_reason_steps" in specimen and ("chosen" in specimen or "rejected" in specimen)


STEPS = Layout("steps", "prompt, initial_reason_steps, chosen, rejected", _matches, read_steps)
