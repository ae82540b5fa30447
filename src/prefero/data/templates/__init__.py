"""Training templates: chat templates that write a family of models' own form, and keep turns as they are when
others follow.

Templates of models that think drop the thoughts of earlier turns, so that what the model said is lost where a
conversation goes on. These keep it, and carry generation marks around what the assistant says. Which family a
model belongs to is told by what its own template writes, never by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import resources
from pathlib import Path
from typing import Any

from prefero.errors import PreferoError, nearest

NAMES = tuple(
    sorted(
        file.name.removesuffix(".jinja")
        for file in resources.files(__name__).iterdir()
        if file.name.endswith(".jinja")
    )
)
"""The names of the training templates."""

Write = Callable[..., str | None]
"""A template at work: messages and the template's arguments to text, or None where it refuses them."""

THOUGHT, ANSWER = "0Thought0", "0Answer0"
"""A thought and an answer that stand in no template: where they are written tells how it writes them."""

QUESTION, OTHER = {"role": "user", "content": "Question"}, {"role": "user", "content": "Another"}
SYSTEM = {"role": "system", "content": "System"}
SAID = {"role": "assistant", "content": ANSWER}
THOUGHTS = (
    {**SAID, "reasoning_content": THOUGHT},
    {**SAID, "content": f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"},
)
"""An answer with a thought before it, in the two ways in which people write thoughts."""

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "description": "A number."}},
            "required": ["a"],
        },
    },
}

CALL = {
    "role": "assistant",
    "content": "",
    "reasoning_content": THOUGHT,
    "tool_calls": [
        {"type": "function", "id": "functions.add:0", "function": {"name": "add", "arguments": {"a": 1}}}
    ],
}
RESULT = {"role": "tool", "content": "Result", "tool_call_id": "functions.add:0"}

FOLLOWED: dict[str, list[list[dict[str, Any]]]] = {
    "user": [[QUESTION, turn, OTHER] for turn in THOUGHTS],
    "tool": [[QUESTION, CALL, RESULT, THOUGHTS[0]]],
}
"""Conversations in which others speak behind the assistant, by who that is."""

SIMPLE: tuple[tuple[list[dict[str, Any]], dict[str, Any]], ...] = (
    ([QUESTION], {}),
    ([QUESTION], {"add_generation_prompt": True}),
    ([SYSTEM, QUESTION, SAID], {}),
    ([QUESTION, OTHER], {"add_generation_prompt": True}),
    ([SYSTEM, QUESTION], {"tools": [TOOL]}),
)
"""Conversations, with the template's arguments, by which a family is told: none has a turn of the assistant
that others follow."""


def template_text(template: str) -> str | None:
    """The template of a name or in a file; None for ``"none"``. A name goes before a file of that name.

    Raises :class:`PreferoError` for what is neither, and for a file that cannot be read.
    """
    if template == "none":
        return None
    if template in NAMES:
        return (resources.files(__name__) / f"{template}.jinja").read_text(encoding="utf-8")
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PreferoError(
            f"the chat template {template!r} cannot be read ({error}): template is auto, none, or a file, or "
            f"the name of a training template ({', '.join(NAMES)}){nearest(template, NAMES)}"
        ) from error


def keeps_turns(write: Write, speakers: Collection[str]) -> bool:
    """Whether a template writes what the assistant says behind the generation prompt, and keeps its thoughts
    when ``speakers``, the user or a tool, speak behind it."""
    asked = write([QUESTION], add_generation_prompt=True)
    for turns in (turns for speaker in speakers for turns in FOLLOWED[speaker]):
        said, longer = write(turns[:2]), write(turns)
        if asked is None or said is None or longer is None or THOUGHT not in said:
            return False
        said = said[: said.rindex(THOUGHT) + len(THOUGHT)]
        thoughts = sum(THOUGHT in str(turn) for turn in turns)
        if not (said.startswith(asked) and longer.startswith(said) and longer.count(THOUGHT) == thoughts):
            return False
    return True


def family_of(own: Write, templates: Callable[[str], Write]) -> str | None:
    """The name of the training template that writes :data:`SIMPLE` conversations as a model's own does, and a
    thought where its own writes one; None where no template does."""
    conversations = list(SIMPLE)
    if THOUGHT in (own([QUESTION, THOUGHTS[0]]) or ""):
        conversations.append(([QUESTION, THOUGHTS[0]], {}))
    texts = [own(turns, **options) for turns, options in conversations]
    for name in NAMES:
        other = templates(name)
        if texts == [other(turns, **options) for turns, options in conversations]:
            return name
    return None
