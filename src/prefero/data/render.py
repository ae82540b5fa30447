"""Prompts and responses as text: as they are, as a transcript, or as a chat template writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prefero.data.examples import Content, Example, Message, Response, Text
from prefero.data.pictures import Picture
from prefero.errors import PreferoError

NOT_PRESERVED = (
    "the chat template does not render the prompt the same way before a response (it changes or drops "
    "earlier text): the prompt is taken as the model reads it when it generates, the response as its "
    "content and what the template puts behind it"
)

LABELS = {"user": "Human", "assistant": "Assistant"}


@dataclass(frozen=True, slots=True)
class Segment:
    """Text within a response; partner turns, tool output and the marks around turns are not scored."""

    text: str
    scored: bool = True


@dataclass(frozen=True, slots=True)
class Rendered:
    """A response as text. ``end`` asks for an end token; ``exact`` is False where the prompt was changed."""

    segments: tuple[Segment, ...]
    end: bool
    exact: bool = True


Ending = Literal["open", "continued", "closed"]
"""The end of a conversation's prompt: open with the mark after which the assistant speaks, continued within
its turn, or closed after the last turn, where one of the responses begins with another speaker."""


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


class ChatTemplate:
    """Conversations as the tokenizer's chat template renders them.

    The response's text is what the rendering of prompt and response adds to that of the prompt, or where the
    template renders the prompt differently then, its content and what follows (:data:`NOT_PRESERVED`).
    """

    starts = False

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def prompt(self, prompt: Text, example: Example, ending: Ending) -> str:
        turns = as_messages(prompt, "user")
        if ending == "continued":
            return self._render(turns, example, continue_final_message=True)
        return self._render(turns, example, add_generation_prompt=ending == "open")

    def response(
        self, prompt: Text, prompt_text: str, response: Response, example: Example, ending: Ending
    ) -> Rendered:
        turns = as_messages(prompt, "user")
        if isinstance(response.content, str) and ending == "continued":
            whole = {**turns[-1], "content": turns[-1]["content"] + response.content}
            return self._last_turn((*turns[:-1], whole), prompt_text, response.content, response, example)
        added = as_messages(response.content, "assistant")
        if len(added) == 1 and ending == "open":
            return self._last_turn((*turns, added[0]), prompt_text, added[0]["content"], response, example)
        return self._several_turns(turns, added, prompt_text, response, example)

    def _last_turn(
        self,
        turns: tuple[Message, ...],
        prompt_text: str,
        content: Any,
        response: Response,
        example: Example,
    ) -> Rendered:
        whole = self._render(turns, example, continue_final_message=not response.ended)
        if whole.startswith(prompt_text):
            text = whole[len(prompt_text) :]
            return Rendered((Segment(text),), response.ended and self._lacks_end(text, content))
        stripped = content.strip() if isinstance(content, str) else ""
        at = whole.rfind(stripped) if stripped else -1
        if at < 0:
            raise PreferoError(
                f"{example.origin}: the chat template renders prompt and response so that neither the prompt "
                "nor the response can be found in the text. Use another chat_template."
            )
        text = whole[at:]
        return Rendered((Segment(text),), response.ended and self._lacks_end(text, content), exact=False)

    def _several_turns(
        self,
        turns: tuple[Message, ...],
        added: tuple[Message, ...],
        prompt_text: str,
        response: Response,
        example: Example,
    ) -> Rendered:
        """A response of several turns: what the assistant says is scored, what its partners say is not."""
        segments: list[Segment] = []
        done = prompt_text
        for position, turn in enumerate(added):
            before = (*turns, *added[:position])
            last = position == len(added) - 1
            if turn["role"] == "assistant":
                opened = self._render(before, example, add_generation_prompt=True)
                if opened != done:
                    segments.append(Segment(self._rest(opened, done, example), scored=False))
                cut = last and not response.ended
                whole = self._render((*before, turn), example, continue_final_message=cut)
                segments.append(Segment(self._rest(whole, opened, example)))
            else:
                whole = self._render((*before, turn), example)
                segments.append(Segment(self._rest(whole, done, example), scored=False))
            done = whole
        end = response.ended and added[-1]["role"] == "assistant"
        return Rendered(tuple(segments), end and self._lacks_end(segments[-1].text, added[-1]["content"]))

    def _rest(self, text: str, beginning: str, example: Example) -> str:
        if text.startswith(beginning):
            return text[len(beginning) :]
        raise PreferoError(
            f"{example.origin}: the response has several turns, and the chat template changes earlier turns "
            "when later ones follow, so that what the model said cannot be told apart. Use a chat_template "
            "that keeps them, or responses of one turn."
        )

    @staticmethod
    def _lacks_end(text: str, content: Any) -> bool:
        """Whether the template puts nothing behind the response, not even an end token."""
        if not isinstance(content, str) or not content.strip():
            return False
        if text.lstrip().startswith(content.strip()):
            # the end of a mark behind it may spell the response once more
            return not text.lstrip().removeprefix(content.strip()).strip()
        return text.rstrip().endswith(content.rstrip())

    def _render(self, turns: Sequence[Message], example: Example, **options: Any) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                list(turns),
                tools=list(example.tools) or None,
                tokenize=False,
                **options,
                **example.template_options,
            )
        except Exception as error:
            raise PreferoError(
                f"{example.origin}: the chat template refuses this conversation "
                f"({', '.join(turn['role'] for turn in turns)}): {error}. Correct the row's messages, or use "
                "another chat_template."
            ) from error


Renderer = PlainText | Transcript | ChatTemplate
"""Turns prompts and responses into text; ``starts`` tells whether the text wants the tokenizer's own
beginning (BOS), which a chat template writes itself."""
