"""Prompts with their responses as text: as they are, as a transcript, or as a chat template writes them.

A :class:`Rendered` is the whole text that the model reads, prompt and response together, because a tokenizer
gives other tokens to two texts apart than to both at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, Protocol

from prefero.data.chat import (
    THOUGHTS,
    ChatTemplate,
    Range,
    Writing,
    as_messages,
    beginning,
    in_one_text,
    thoughts_in,
    without_ends,
)
from prefero.data.examples import Example, Message, Response, Text, spoken
from prefero.data.formats.fields import MESSAGES
from prefero.data.images import ImagePrompts
from prefero.data.pictures import Picture
from prefero.data.templates import ANSWER, template_text
from prefero.errors import PreferoError

LABELS = {"user": "Human", "assistant": "Assistant"}

ROLES = {"system", "user", "assistant", "tool", "developer"}
"""The roles of messages that chat templates may write without naming them."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt with one response as text; the response begins at the character ``start``.

    ``scored`` are the ranges of characters that count: all of a response but partner turns, tool output and
    the marks around turns. ``end`` asks for the end token behind the text. ``notes`` say what a reader of the
    row might not expect.
    """

    text: str
    start: int
    scored: tuple[Range, ...]
    end: bool
    notes: tuple[str, ...] = ()


def arguments_of(turn: Message) -> Iterator[Any]:
    """The arguments of the calls that a message holds."""
    for call in turn.get("tool_calls") or ():
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        yield function.get("arguments") if isinstance(function, Mapping) else None


Ending = Literal["open", "continued", "closed"]
"""The end of a conversation's prompt: open with the mark after which the assistant speaks, continued within
its turn, or closed after the last turn, where one of the responses begins with another speaker."""


class Renderer(Protocol):
    """Turns prompts and responses into text; ``starts`` tells whether the text wants the tokenizer's own
    beginning (BOS), which a chat template writes itself."""

    starts: bool

    def prompt(self, prompt: Text, example: Example, ending: Ending) -> str:
        """The prompt alone, as the model reads it when it generates."""
        ...

    def response(self, prompt: Text, response: Response, example: Example, ending: Ending) -> Rendered:
        """The prompt with one response."""
        ...


def with_earlier_turns(example: Example) -> Example:
    """The example whose responses begin with the first turn of the assistant in the prompt that each answers,
    so that all turns of the assistant are scored. A prompt without such a turn, or whose last one the
    responses continue, stays as it is."""

    def first_of(prompt: Text, responses: Sequence[Response]) -> int:
        roles = [] if isinstance(prompt, str) else [turn["role"] for turn in prompt]
        continued = "assistant" in roles and ending_of(prompt, responses) == "continued"
        return len(prompt) if continued or "assistant" not in roles else roles.index("assistant")

    sharing = [response for response in example.responses if response.prompt is None]
    shared = example.prompt[: first_of(example.prompt, sharing)]

    def moved(response: Response) -> Response:
        whole = example.prompt if response.prompt is None else response.prompt
        first = len(shared) if response.prompt is None else first_of(whole, (response,))
        prompt = None if whole[:first] == shared else whole[:first]
        if isinstance(whole, str) or first == len(whole):
            return replace(response, prompt=prompt)
        earlier = whole[first:]
        shift = sum(map(len, spoken(earlier)))
        spans = (replace(span, start=span.start + shift, end=span.end + shift) for span in response.spans)
        content = (*earlier, *as_messages(response.content, "assistant"))
        return replace(response, content=content, spans=tuple(spans), prompt=prompt)

    return replace(example, prompt=shared, responses=tuple(map(moved, example.responses)))


class Renderers:
    """The renderers of a data set: one policy for all of its rows.

    Conversations, and plain text too, go through the chat template of ``tokenizer`` (of ``images``' processor
    for models that see). Text that holds the template's marks has been through it, and is taken as it is.
    Without a template conversations become a transcript, and text stays as it is.

    ``writing`` is how they are written, with the template that was chosen for ``examples``: where responses
    go on behind a turn of the user or of a tool, and the model's own template changes earlier turns then, the
    training template of its family.
    """

    def __init__(
        self,
        tokenizer: Any,
        images: ImagePrompts | None = None,
        writing: Writing | None = None,
        examples: Iterable[Example] = (),
    ) -> None:
        writer, writing = tokenizer if images is None else images, writing or Writing()
        own = writer.chat_template
        chosen = template_of(writing.template, own)
        template = ChatTemplate(writer, tokenizer, writing, chosen) if chosen else None
        if template and writing.template == "auto":
            speakers = {speaker for example in examples for speaker in speakers_within(example)}
            template = template.keeping_turns(speakers)
        elif template and own and not template.writes_as(ChatTemplate(writer, tokenizer, writing, own)):
            template.writing = replace(writing, reason=OTHER_TEMPLATE)
        self.writing = template.writing if template else writing
        self.chat = Chat(template) if template else None
        self.text, self.transcript = PlainText(tokenizer, template), Transcript(tokenizer)

    def of(self, example: Example) -> Renderer:
        if self.chat is not None:
            written = isinstance(example.prompt, str) and self.chat.template.wrote(example.prompt)
            return self.text if written else self.chat
        texts = all(isinstance(response.content, str) for response in example.responses)
        return self.text if texts and isinstance(example.prompt, str) else self.transcript


def template_of(name: str, own: str | Mapping[str, str] | None) -> str | Mapping[str, str] | None:
    """The template that ``name`` chooses beside a tokenizer's ``own``, which may be several by name."""
    if name in ("auto", "own"):
        return own
    return own[name] if isinstance(own, Mapping) and name in own else template_text(name)


def speakers_within(example: Example) -> set[str]:
    """The user or a tool, or both, where they speak behind the assistant within a response."""
    speakers: set[str] = set()
    for response in example.responses:
        if not isinstance(response.content, str | Picture):
            roles = [turn["role"] for turn in response.content]
            speakers |= (
                {"user", "tool"} & {*roles[roles.index("assistant") :]} if "assistant" in roles else set()
            )
    return speakers


def ending_of(prompt: Text, responses: Sequence[Response]) -> Ending:
    """The one way to end ``prompt`` that fits all ``responses``."""
    texts = all(isinstance(response.content, str) for response in responses)
    if texts and not isinstance(prompt, str) and prompt and prompt[-1]["role"] == "assistant":
        return "continued"
    first = [as_messages(response.content, "assistant")[0]["role"] for response in responses]
    return "open" if all(role == "assistant" for role in first) else "closed"


GOES_ON = "the response goes on behind an end mark, where a model that generates stops"


END_MARKS = (
    "<|im_end|>",
    "</s>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end|>",
    "<|return|>",
    "<|eom_id|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
)
"""The marks with which common families of models end turns and texts."""

OTHER_TEMPLATE = "which writes conversations in another way than the tokenizer's default template"

WITHOUT_TEMPLATE = "no chat template: the conversation is written as Human: and Assistant: turns"


def other_ends(response: Response, ends: Sequence[str]) -> Iterator[str]:
    """A note on the end marks of other families than the model's in what a response says."""
    said = "".join(spoken(response.content))
    found = [mark for mark in END_MARKS if mark in said and mark not in ends]
    if found:
        yield f"a response holds {', '.join(found)}, which does not end turns of this model and is kept"


class PlainText:
    """Text as it is. An end mark that a response brings is not added a second time; text with the marks of
    ``template`` ends as that does, and an answer begins behind the header that it writes."""

    starts = True

    def __init__(self, tokenizer: Any, template: ChatTemplate | None) -> None:
        self.template = template
        self.ends = tuple(mark for mark in (tokenizer.eos_token, template and template.end) if mark)

    def prompt(self, prompt: Text, example: Example, ending: Ending) -> str:
        assert isinstance(prompt, str)
        return prompt if self.template is None else self.template.opened(prompt)

    def response(self, prompt: Text, response: Response, example: Example, ending: Ending) -> Rendered:
        before = self.prompt(prompt, example, ending)
        content = self._content(response, example)
        notes = list(self._notes(example, before != prompt))
        if self.template is not None and self.template.opens_answer(before):
            content = self.template.without_header(content)
        bare = without_ends(content, self.ends)
        ended = bare != content
        if any(mark in bare for mark in self.ends):
            notes.append(GOES_ON)
        notes += other_ends(response, self.ends)
        if ended:
            content = bare + next(mark for mark in self.ends if content.rstrip().endswith(mark))
            notes.append("the response ends with an end mark of its own")
        elif self.template is not None and response.ended:
            content += self.template.end
            ended = bool(self.template.end)
        text = before + content
        return Rendered(
            text, len(before), ((len(before), len(text)),), response.ended and not ended, tuple(notes)
        )

    def _content(self, response: Response, example: Example) -> str:
        """The text of a response, also of one message of the assistant that holds no more than a text."""
        (first, *others) = as_messages(response.content, "assistant")
        content = in_one_text(first)["content"]
        if others or first["role"] != "assistant" or first.get("tool_calls") or not isinstance(content, str):
            raise PreferoError(
                f"{example.origin}: the prompt holds marks of the chat template, so that it is taken as it "
                "is, but a response is more than one text. Give the prompt as messages, without marks."
            )
        return content

    def _notes(self, example: Example, opened: bool) -> Iterator[str]:
        if self.template is not None:
            yield "the text holds marks of the chat template, so it is taken as it is"
        if opened:
            yield "the header of an answer is added to the prompt, which ends with the user's turn"
        if example.tools:
            yield "tools of the row are not written, because its text is taken as it is"
        if example.template_options:
            yield "chat_template_kwargs of the row are not used, because its text is taken as it is"


class Transcript:
    """Conversations as plain ``Human:`` and ``Assistant:`` turns, for models without a chat template."""

    starts = True

    def __init__(self, tokenizer: Any) -> None:
        self.ends = (tokenizer.eos_token,) if tokenizer.eos_token else ()

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

    def response(self, prompt: Text, response: Response, example: Example, ending: Ending) -> Rendered:
        text = self.prompt(prompt, example, ending)
        notes = (WITHOUT_TEMPLATE, *other_ends(response, self.ends))
        start, scored = len(text), []
        if isinstance(response.content, str) and ending == "continued":
            text += response.content
            return Rendered(text, start, ((start, len(text)),), response.ended, notes)
        in_turn = ending == "open"
        for turn in as_messages(response.content, "assistant"):
            if turn["role"] == "assistant":
                text += "" if in_turn else "\n\nAssistant:"
                content = self._content(turn, example)
                scored.append((len(text), len(text) + len(content) + bool(content)))
                text += f" {content}" if content else ""
            else:
                text += self._turn(turn, example)
            in_turn = False
        return Rendered(text, start, tuple(scored), response.ended, notes)

    def _turn(self, turn: Message, example: Example) -> str:
        label = LABELS.get(turn["role"], turn["role"].capitalize())
        return f"\n\n{label}: {self._content(turn, example)}"

    def _content(self, turn: Message, example: Example) -> str:
        content = in_one_text(turn)["content"]
        if not isinstance(content, str) or turn.get("tool_calls"):
            raise PreferoError(
                f"{example.origin}: a message of {turn['role']} holds more than text, and this model's "
                "tokenizer has no chat template to show it with. Use the model's chat version."
            )
        return without_ends(content, self.ends) if turn["role"] == "assistant" else content


def _from(start: int, text: str, said: Sequence[Range] | None) -> tuple[Range, ...]:
    """The ranges of ``said`` from ``start`` to the end of the text; all of that where they are not known."""
    if said is None:
        return ((start, len(text)),)
    ranges = ((max(low, start), min(high, len(text))) for low, high in said)
    return tuple((low, high) for low, high in ranges if low < high)


def _behind_opening(content: Any, opening: str) -> str | None:
    """The rest of a response behind ``opening``, with which the prompt ends, whether the response repeats it
    or not; None for a response that does not go on there."""
    mark = opening.strip()
    if not mark or not isinstance(content, str):
        return None
    if content.lstrip().startswith(mark):
        space = opening[len(opening.rstrip()) :]
        return content.lstrip().removeprefix(mark).removeprefix(space)
    return content if mark.startswith("<") and mark.replace("<", "</", 1) in content else None


class Chat:
    """Conversations as a chat template writes them: text and response are always its own rendering.

    The response is what the rendering of prompt and response adds to that of the prompt, up to its end mark:
    generation stops there, so what a template writes behind it is left out. Where a template marks what the
    assistant says, that is what is scored.
    """

    starts = False

    def __init__(self, template: ChatTemplate) -> None:
        self.template, self.writer = template, template.writer

    def prompt(self, prompt: Text, example: Example, ending: Ending) -> str:
        turns = self._turns(prompt, example)
        if ending == "continued":
            return self._unended(turns, example)
        return self._render(turns, example, add_generation_prompt=ending == "open")

    def response(self, prompt: Text, response: Response, example: Example, ending: Ending) -> Rendered:
        turns = self._turns(prompt, example)
        added = tuple(map(self.template.bare, as_messages(response.content, "assistant")))
        notes = tuple(self._notes(prompt, response, example, (*turns, *added)))
        text = isinstance(response.content, str)
        response = replace(response, content=added[0]["content"] if text else added)
        before = self.prompt(prompt, example, ending)
        if text and ending == "continued":
            rendered = self._continued(turns, before, response, example, notes)
        elif len(added) > 1 or ending == "closed":
            rendered = self._several_turns(turns, added, before, response, example, notes)
        else:
            rendered = self._one_turn(turns, added[0], before, response, example, notes)
        return replace(rendered, notes=(*rendered.notes, *self._lost(turns, added, rendered)))

    def _turns(self, prompt: Text, example: Example) -> tuple[Message, ...]:
        """A prompt as messages. Raises :class:`PreferoError` for messages that have been through the
        template."""
        turns = tuple(map(self.template.bare, as_messages(prompt, "user")))
        for turn in turns:
            content = in_one_text(turn)["content"]
            if isinstance(content, str) and content.lstrip().startswith(self.template.marks):
                raise PreferoError(
                    f"{example.origin}: a message of {turn['role']} begins with marks of the chat template "
                    f"({content.lstrip()[:40]!r}), which would stand twice. Give the prompt as one text, "
                    "without a system text or other messages, or take the marks out."
                )
        return turns

    def _lost(self, turns: Sequence[Message], added: Sequence[Message], rendered: Rendered) -> Iterator[str]:
        """Notes on what turns say and the text does not."""
        texts = Counter(said.strip() for said in (*spoken(tuple(added)), *thoughts_in(tuple(added))))
        for said, times in texts.items():
            # what a response begins with may stand in the prompt: the mark of a thought
            text = rendered.text[max(rendered.start - len(said) - 1, 0) :]
            if said and text.count(said) < times:
                yield "the chat template leaves out or changes part of what the response says"
                break
        for turn in (*turns, *added):
            content = in_one_text(turn)["content"]
            said = content.strip() if isinstance(content, str) and turn["role"] != "assistant" else ""
            if said not in rendered.text:
                yield f"the chat template leaves out or changes what a turn of {turn['role']} says"

    def _continued(
        self,
        turns: tuple[Message, ...],
        before: str,
        response: Response,
        example: Example,
        notes: tuple[str, ...],
    ) -> Rendered:
        """A response in text that continues the last turn of the prompt."""
        begun = in_one_text(turns[-1])["content"] or ""
        if not isinstance(begun, str):
            raise PreferoError(
                f"{example.origin}: the prompt ends within a turn of the assistant that holds more than "
                "text, which a response in text cannot continue. Give the response as a message."
            )
        whole = (*turns[:-1], {**turns[-1], "content": f"{begun}{response.content}"})
        text, end, said = self._rendered(whole, before, response, example)
        if not text.startswith(before):
            self._refuse_changes(example)
        return Rendered(text, len(before), _from(len(before), text, said), end, notes)

    def _one_turn(
        self,
        turns: tuple[Message, ...],
        answer: Message,
        before: str,
        response: Response,
        example: Example,
        notes: tuple[str, ...],
    ) -> Rendered:
        text, end, said = self._rendered((*turns, answer), before, response, example)
        if text.startswith(before):
            return Rendered(text, len(before), _from(len(before), text, said), end, notes)
        start, opening = self._opening(turns, before, example)
        start = min(start, len(beginning(text, before)))
        rest = _behind_opening(answer["content"], opening)
        if rest is not None and not answer.get("tool_calls"):
            # the response brings the thought that the generation prompt opens, and the template drops it
            text = before + rest + (self.template.end if response.ended else "")
            end = response.ended and not self.template.end
            return Rendered(text, len(before), ((len(before), len(text)),), end, notes)
        if start < len(before) - len(opening):
            self._refuse_changes(example)
        note = (
            f"the generation prompt opens with {opening.strip() or opening!r}, which the response does not: "
            "it stands behind the prompt as the template writes the conversation"
        )
        return Rendered(text, start, _from(start, text, said), end, (*notes, note))

    def _opening(self, turns: tuple[Message, ...], before: str, example: Example) -> tuple[int, str]:
        """Where an answer begins in a conversation, and what the prompt alone opens it with, such as the mark
        of a thought, also where the conversation has that mark and closes it at once.

        Raises :class:`PreferoError` where the template changes earlier turns when an answer follows.
        """
        answered = (*turns, {"role": "assistant", "content": ANSWER})
        own = self._render(answered, example)
        said = self.template.said(answered, own, self._arguments(example))
        own = own[: said[-1][0]] if said else own.partition(ANSWER)[0]
        start = len(beginning(own, before))
        # what it writes of the answer's own turn, such as an empty thought, belongs to the response
        if own[start:].strip() and start < len(self._render(turns, example)):
            self._refuse_changes(example)
        mark = re.search(r"<([^<>/]+)>\s*$", before[:start])
        closed = mark is not None and own[start:].lstrip().startswith(f"</{mark[1]}>")
        return start, before[mark.start() if mark and closed else start :]

    def _refuse_changes(self, example: Example) -> NoReturn:
        raise PreferoError(
            f"{example.origin}: the chat template changes earlier turns when a response follows, so that the "
            "prompt is not the one that the model reads when it generates. Use another template "
            "(data.template)."
        )

    def _several_turns(
        self,
        turns: tuple[Message, ...],
        added: tuple[Message, ...],
        before: str,
        response: Response,
        example: Example,
        notes: tuple[str, ...],
    ) -> Rendered:
        """A response of several turns: what the assistant says is scored, what its partners say is not."""
        last = before
        if len(added) > 1 and added[-1]["role"] == "assistant":
            last = self._render((*turns, *added[:-1]), example, add_generation_prompt=True)
        text, end, said = self._rendered((*turns, *added), last, response, example)
        start = len(before)
        if not text.startswith(before) and added[0]["role"] == "assistant":
            start, _ = self._opening(turns, before, example)
        if not text.startswith(before[:start]):
            self._refuse_turns(example)
        end = end and added[-1]["role"] == "assistant"
        if said is None:
            said = self._ranges_by_prefixes(turns, added, text, response, example)
        if said is None:
            said = self.template.ranges_by_marks(added, text, start)
        if said is None:
            self._refuse_turns(example)
        return Rendered(text, start, _from(start, text, said), end, notes)

    def _refuse_turns(self, example: Example) -> NoReturn:
        raise PreferoError(
            f"{example.origin}: the response has several turns, and the chat template changes earlier turns "
            "when later ones follow, so that what the model said cannot be told apart. Use another template "
            "(data.template) that keeps them, or responses of one turn."
        )

    def _ranges_by_prefixes(
        self,
        turns: tuple[Message, ...],
        added: tuple[Message, ...],
        text: str,
        response: Response,
        example: Example,
    ) -> list[Range] | None:
        """The assistant's turns by rendering the conversation up to each; None where the template does not
        keep turns as later ones follow."""
        ranges = []
        for position, turn in enumerate(added):
            if turn["role"] != "assistant":
                continue
            conversation = (*turns, *added[: position + 1])
            opened = self._render(conversation[:-1], example, add_generation_prompt=True)
            last = position == len(added) - 1
            closed = (
                text if last else self.template.ended(self._render(conversation, example), len(opened))[0]
            )
            if not (text.startswith(opened) and text.startswith(closed) and len(opened) <= len(closed)):
                return None
            ranges.append((len(opened), len(closed)))
        return ranges

    def _notes(
        self, prompt: Text, response: Response, example: Example, turns: Sequence[Message]
    ) -> Iterator[str]:
        if isinstance(prompt, str):
            yield (
                "plain text: the chat template writes the prompt as one user turn (template none takes it as "
                "it is)"
            )
            if any(mark in prompt for mark in (*self.template.marks, *self.template.ends)):
                yield "the prompt holds a mark of the chat template, but not those around a turn: it is kept"
        brought = (*as_messages(prompt, "user"), *as_messages(response.content, "assistant"))
        if list(brought) != list(turns):
            yield "the row brings marks of the chat template, which stand once"
        if any(mark in said for said in spoken(tuple(turns)) for mark in self.template.ends):
            yield GOES_ON
        yield from other_ends(response, self.template.ends)
        source = self.template.source(bool(example.tools))
        for name in {**self.template.writing.options, **example.template_options}:
            if not re.search(rf"\b{re.escape(name)}\b", source):
                yield f"the chat template knows no argument {name!r} (chat_template_kwargs)"
        if example.tools and "tools" not in source:
            yield "the chat template does not write tools, so the model does not see them"
        for name in sorted({name for turn in turns for name in turn} - {"role", "content"}):
            said = any(turn.get(name) not in (None, "", [], {}) for turn in turns)
            names = "|".join(map(re.escape, THOUGHTS[:2] if name in THOUGHTS else [name]))
            if said and not re.search(rf"\b({names})\b", source):
                yield f"the chat template does not write {name!r} of messages"
        for role in sorted({turn["role"] for turn in turns} - ROLES):
            if not re.search(rf"\b{re.escape(role)}\b", source):
                yield f"the chat template does not know the role {role!r} of messages"
        if any(isinstance(turn["content"], str) and MESSAGES.match(turn["content"]) for turn in turns):
            yield "a text that spells a list of messages is taken as it is: few rows of its column do"

    def _rendered(
        self, turns: tuple[Message, ...], before: str, response: Response, example: Example
    ) -> tuple[str, bool, list[Range] | None]:
        """The whole text, whether it lacks an end token, and what the assistant says.
        ``before`` is the text before the last turn."""
        whole = self._render(turns, example)
        said = self.template.said(turns, whole, self._arguments(example))
        if not response.ended:
            return self._unended(turns, example), False, said
        since = len(before) if whole.startswith(before) else 0
        if said and turns[-1]["role"] == "assistant":
            since = said[-1][0]
        return *self.template.ended(whole, since), said

    def _unended(self, turns: tuple[Message, ...], example: Example) -> str:
        """The conversation as far as its last turn is written."""
        text = self._render(turns, example)
        if self.template.behind is not None and text.endswith(self.template.behind):
            return text.removesuffix(self.template.behind)
        return self._render(turns, example, continue_final_message=True)

    def _render(self, turns: Sequence[Message], example: Example, **options: Any) -> str:
        written = [in_one_text(turn) for turn in turns]
        try:
            return self.writer.apply_chat_template(
                written, tokenize=False, **{**self._arguments(example), **options}
            )
        except Exception as error:
            spelled = any(isinstance(given, str) for turn in turns for given in arguments_of(turn))
            calls = " The arguments of its calls are texts; templates may want objects." if spelled else ""
            raise PreferoError(
                f"{example.origin}: the chat template refuses this conversation "
                f"({', '.join(turn['role'] for turn in turns)}): {error}.{calls} Correct the row's messages, "
                "or use another template (data.template)."
            ) from error

    def _arguments(self, example: Example) -> dict[str, Any]:
        return self.template.arguments(example.tools, example.template_options)
