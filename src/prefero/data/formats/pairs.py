"""TRL's rows: ``chosen`` and ``rejected`` with the prompt given or implied, or a ``completion`` alone that is
labelled or scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prefero.data.examples import Example, Message, Response, Text
from prefero.data.formats.annotations import truth
from prefero.data.formats.fields import Fields
from prefero.data.formats.layout import Layout
from prefero.data.schema import SCHEMA

PROMPTS = ("prompt", "question", "instruction", "query")

SCORES = tuple(name for name in SCHEMA["score"].fields if "/" not in name)


def read_pair(fields: Fields) -> Example:
    """A row with ``chosen`` and ``rejected``.

    Without a prompt field, or where both sides repeat it, the prompt is what the two sides share: the common
    messages, or for text the common beginning up to the last white space, so that no word is split.
    """
    chosen, rejected = fields.turns("chosen"), fields.turns("rejected")
    fields.not_empty(chosen, "chosen")
    fields.not_empty(rejected, "rejected")
    if chosen == rejected:
        refuse_equal(fields)
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


def refuse_equal(fields: Fields) -> None:
    fields.fail("rejected", "it equals chosen, so the pair prefers nothing", "two different responses")


def _of_texts(fields: Fields, prompt: Text | None, chosen: str, rejected: str) -> tuple[Text, str, str]:
    if prompt is None:
        length = 0
        while length < min(len(chosen), len(rejected)) and chosen[length] == rejected[length]:
            length += 1
        while length and not chosen[length - 1].isspace():
            length -= 1
        length = len(chosen[:length].rstrip())
        return chosen[:length], chosen[length:], rejected[length:]
    if isinstance(prompt, str) and fields.values.get("system"):
        prompt = ({"role": "system", "content": fields.text("system")}, {"role": "user", "content": prompt})
    return prompt, chosen, rejected


Messages = tuple[Message, ...]


def _of_messages(
    prompt: Text | None, chosen: Messages, rejected: Messages
) -> tuple[Text, Messages, Messages]:
    given = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt or ())
    length = len(given)
    if given and chosen[:length] == given and rejected[:length] == given:
        return given, chosen[length:], rejected[length:]
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
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
    good = truth(fields, "label", fields.require("label", "true or false, or a score"))
    return Example(prompt, (replace(response, columns={"label": 1.0 if good else -1.0}),))


def _is_pair(specimen: Mapping[str, Any]) -> bool:
    return "chosen" in specimen or "rejected" in specimen


def _is_labelled(specimen: Mapping[str, Any]) -> bool:
    return "completion" in specimen and any(name in specimen for name in ("label", *SCORES))


PAIRS = Layout("pairs", "chosen, rejected and, unless the two share it, prompt", _is_pair, read_pair)
LABELLED = Layout("unpaired", "prompt, completion, and label or score", _is_labelled, read_labelled)
