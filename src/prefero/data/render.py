r"""The text that a model reads: of a prompt, and of a response after it.

A tokenizer with a chat template renders conversations with it. One without (a base model's) reads them as a
plain transcript in the form of Anthropic's HH data: the system turn as it is, then ``\n\nHuman: …`` and
``\n\nAssistant: …`` turns, the prompt ending with ``\n\nAssistant:`` and the response beginning with a space.
A prompt that is text, not messages, is read as it is by every model.

A prompt that ends with a turn of the assistant is continued by a response that is text: it goes on in that
turn. A response of messages is new turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from prefero.data.examples import Content, Example, Message, Response, Text
from prefero.data.pictures import Picture
from prefero.errors import PreferoError

LABELS = {"user": "Human", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a response; partner turns, tool output and the marks around turns are not scored."""

    text: str
    scored: bool = True


@dataclass(frozen=True, slots=True)
class Rendered:
    """A response as text. ``end`` asks for the end token behind it; ``exact`` is False where the template did
    not keep the prompt as it was."""

    segments: tuple[Segment, ...]
    end: bool
    exact: bool = True


Ending = Literal["open", "continued", "closed"]
"""How a conversation's prompt ends: with the mark after which the assistant speaks, in the midst of its turn,
or after the last turn, where one of the responses begins with another speaker."""


class Renderer(Protocol):
    """Turns prompts and responses into text; ``starts`` tells whether the text wants the tokenizer's own
    beginning (BOS), which a chat template writes itself."""

    starts: bool

    def prompt(self, prompt: Text, example: Example, ending: Ending) -> str: ...

    def response(
        self, prompt: Text, prompt_text: str, response: Response, example: Example, ending: Ending
    ) -> Rendered: ...


def conversational(prompt: Text, responses: Sequence[Response]) -> bool:
    return not isinstance(prompt, str) or any(not isinstance(r.content, str) for r in responses)


def as_messages(text: Content, role: str) -> tuple[Message, ...]:
    """Raises :class:`PreferoError` for an image, which no language model writes."""
    if isinstance(text, Picture):
        raise PreferoError(
            f"{text.origin}: the response is an image, which a language model does not write; name a model "
            "that draws (a diffusers folder or hub name)"
        )
    return ({"role": role, "content": text},) if isinstance(text, str) else text


def ending_of(prompt: Text, responses: Sequence[Response]) -> Ending:
    """The one way to end ``prompt`` that fits all ``responses``."""
    texts = all(isinstance(response.content, str) for response in responses)
    if texts and not isinstance(prompt, str) and prompt and prompt[-1]["role"] == "assistant":
        return "continued"
    first = [as_messages(response.content, "assistant")[0]["role"] for response in responses]
    return "open" if all(role == "assistant" for role in first) else "closed"


class PlainText:
    """Text as it is."""

    starts = True

    def prompt(self, prompt: Text, example: Example, ending: Ending) -> str:
        assert isinstance(prompt, str)
        return prompt

    def response(
        self, prompt: Text, prompt_text: str, response: Response, example: Example, ending: Ending
    ) -> Rendered:
        assert isinstance(response.content, str)
        return Rendered((Segment(response.content),), response.ended)


class Transcript:
    """Conversations as plain ``Human:`` and ``Assistant:`` turns, for models without a chat template."""

    starts = True

    def prompt(self, prompt: Text, example: Example, ending: Ending) -> str:
        if example.tools:
            raise PreferoError(
                f"{example.origin}: the row has tools, and this model's tokenizer has no chat template to "
                "show them with. Use the model's chat version, or give the tokenizer a chat_template."
            )
        turns = as_messages(prompt, "user")
        system = turns[:1] if turns and turns[0]["role"] == "system" else ()
        text = "".join(self._content(turn, example) for turn in system)
        text += "".join(self._turn(turn, example) for turn in turns[len(system) :])
        return f"{text}\n\nAssistant:" if ending == "open" else text

    def response(
        self, prompt: Text, prompt_text: str, response: Response, example: Example, ending: Ending
    ) -> Rendered:
        if isinstance(response.content, str) and ending == "continued":
            return Rendered((Segment(response.content),), response.ended)
        segments: list[Segment] = []
        in_turn = ending == "open"
        for turn in as_messages(response.content, "assistant"):
            if turn["role"] == "assistant":
                if not in_turn:
                    segments.append(Segment("\n\nAssistant:", scored=False))
                content = self._content(turn, example)
                segments.append(Segment(f" {content}" if content else ""))
            else:
                segments.append(Segment(self._turn(turn, example), scored=False))
            in_turn = False
        return Rendered(tuple(segments), response.ended)

    def _turn(self, turn: Message, example: Example) -> str:
        label = LABELS.get(turn["role"], turn["role"].capitalize())
        return f"\n\n{label}: {self._content(turn, example)}"

    def _content(self, turn: Message, example: Example) -> str:
        content = turn["content"]
        if isinstance(content, list) and all(part.get("type") == "text" for part in content):
            content = "".join(part["text"] for part in content)
        if not isinstance(content, str) or turn.get("tool_calls"):
            raise PreferoError(
                f"{example.origin}: a message of {turn['role']} holds more than text, and this model's "
                "tokenizer has no chat template to show it with. Use the model's chat version."
            )
        return content
