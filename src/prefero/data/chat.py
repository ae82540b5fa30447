"""Conversations as messages, and the chat template that writes them: what it is given, the marks that it
writes around turns, and where the assistant speaks in its text."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal

from jinja2 import TemplateSyntaxError
from transformers.utils.chat_template_utils import render_jinja_template

from prefero.data.examples import Content, Message
from prefero.data.images import ImagePrompts, in_parts
from prefero.data.pictures import Picture
from prefero.data.templates import ANSWER, QUESTION, SIMPLE, family_of, keeps_turns, template_text
from prefero.errors import PreferoError

THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""The keys under which messages hold thoughts; transformers gives a template each of the first two."""

GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
"""The mark with which a template tells where the assistant begins to speak."""

Range = tuple[int, int]
"""Places of the first character and of the one after the last."""

Score = Literal["last", "all_assistant"]


@dataclass(frozen=True, slots=True)
class Writing:
    """How conversations are written as text.

    ``template`` is ``"auto"`` for the tokenizer's own chat template, or the training template of its family
    where the data need one; ``"own"`` for its own whatever the data need; ``"none"`` for none; the name of a
    training template; or a file with a template (Jinja). ``options`` are arguments for it; those of a row
    come on top. ``date`` is today for templates that write it. ``score`` says which turns of the assistant
    are scored: ``"last"`` the response's, ``"all_assistant"`` those in the prompt too. ``reason`` says why a
    template was chosen automatically.
    """

    template: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    date: dt.date | None = None
    score: Score = "last"
    reason: str = ""

    @property
    def shown(self) -> str:
        """The template, with the reason for which it was chosen."""
        return f"{self.template}, {self.reason}" if self.reason else self.template


def as_messages(text: Content, role: str) -> tuple[Message, ...]:
    """Raises :class:`PreferoError` for an image, which no language model writes."""
    if isinstance(text, Picture):
        raise PreferoError(
            f"{text.origin}: the response is an image, which a language model does not write; name a model "
            "that draws (a diffusers folder or hub name)"
        )
    return ({"role": role, "content": text},) if isinstance(text, str) else text


def thoughts_in(content: Content) -> list[str]:
    """The thoughts that messages of the assistant hold apart from what they say."""
    turns = [turn for turn in as_messages(content, "assistant") if turn["role"] == "assistant"]
    return [turn[name] for turn in turns for name in THOUGHTS if isinstance(turn.get(name), str)]


def in_one_text(turn: Message) -> Message:
    """The turn with its content as one text, where it is a list of parts that are all text."""
    content = turn["content"]
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        return {**turn, "content": "".join(part["text"] for part in content)}
    return turn


def without_ends(text: str, ends: tuple[str, ...]) -> str:
    """A text without the end marks behind it; one of nothing else as it is."""
    bare = text
    while bare.rstrip().endswith(ends):
        bare = bare.rstrip()
        for mark in ends:
            bare = bare.removesuffix(mark)
    return bare if bare.strip() else text


def dated(template: str, date: dt.date) -> str:
    """The template with ``date`` wherever it writes the date of today."""
    return re.sub(
        r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""",
        lambda call: json.dumps(date.strftime(call[2]), ensure_ascii=False),
        template,
    )


def beginning(first: str, second: str) -> str:
    """The text with which both begin."""
    pairs = zip(first, second, strict=False)
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class ChatTemplate:
    """A chat template and the marks that it writes around turns.

    ``writer`` applies it: the tokenizer, or a processor that writes images too. ``sources`` is its text, or
    texts by name, as tokenizers keep several.
    """

    def __init__(self, writer: Any, tokenizer: Any, writing: Writing, sources: Any) -> None:
        self.writer, self.tokenizer, self.writing = writer, tokenizer, writing
        sources = sources if isinstance(sources, Mapping) else {"default": sources}
        date = writing.date or dt.date.today()
        self.sources = {name: dated(source, date) for name, source in sources.items()}
        self.write([QUESTION])  # what is no template at all is refused here, and not at a row

    def keeping_turns(self, speakers: Collection[str]) -> ChatTemplate:
        """The training template of this template's family; itself where it keeps turns, with a mark at their
        ends, when ``speakers`` follow, or none is alike."""
        if not speakers or (self.end and keeps_turns(self.write, speakers)):
            return self

        def other(name: str, reason: str = "") -> ChatTemplate:
            writing = replace(self.writing, template=name, reason=reason)
            return ChatTemplate(self.writer, self.tokenizer, writing, template_text(name))

        name = family_of(self.write, lambda name: other(name).write)
        reason = "a training template of prefero that keeps earlier turns, which the model's own does not"
        if keeps_turns(self.write, speakers):
            reason = (
                "a training template of prefero that marks the ends of turns, which the model's own does not"
            )
        return self if name is None else other(name, reason)

    def source(self, tools: bool = False) -> str:
        """The template, where a tokenizer has several by name the one for rows with ``tools`` or without."""
        name = "tool_use" if tools and "tool_use" in self.sources else "default"
        if name not in self.sources:
            raise PreferoError(
                f"the tokenizer has chat templates by the names {', '.join(self.sources)}, and none of them "
                "is 'default'. Name the template to use (data.template)."
            )
        return self.sources[name]

    def write(self, turns: Sequence[Message], **options: Any) -> str | None:
        """A conversation as the template writes it; None where it refuses it.

        Raises :class:`PreferoError` for text that is no template.
        """
        try:
            source = self.source(bool(options.get("tools")))
            given = {"chat_template": source, **self.writing.options, **options}
            return self.writer.apply_chat_template(list(turns), tokenize=False, **given)
        except TemplateSyntaxError as error:
            name = (
                "the tokenizer's own" if self.writing.template in ("auto", "own") else self.writing.template
            )
            raise PreferoError(
                f"the chat template ({name}), line {error.lineno}: {error.message}. Expected a template in "
                "Jinja's language; correct it, or name another one (data.template)"
            ) from error
        except Exception:
            return None

    def writes_as(self, other: ChatTemplate) -> bool:
        """Whether another template writes simple conversations as this one does."""
        return all(self.write(turns, **options) == other.write(turns, **options) for turns, options in SIMPLE)

    @cached_property
    def _sample(self) -> tuple[str, str, str, str] | None:
        """A question, the question with the header of an answer, with an answer, and with another question
        behind that (empty where the template refuses it); None for a template that does not write such a
        conversation, with a system turn before it or without."""
        question, answer = {"role": "user", "content": "Question"}, {"role": "assistant", "content": ANSWER}
        for system in ([], [{"role": "system", "content": "System"}]):
            asked = self.write([*system, question])
            opened = self.write([*system, question], add_generation_prompt=True)
            text = self.write([*system, question, answer])
            if asked is None or opened is None or text is None:
                continue
            longer = self.write([*system, question, answer, question]) or ""
            return (asked, opened, text, longer) if text.count(ANSWER) == 1 else None
        return None

    @cached_property
    def behind(self) -> str | None:
        """The text behind an answer that ends a conversation; None where that is not known."""
        return None if self._sample is None else self._sample[2].partition(ANSWER)[2]

    @cached_property
    def end(self) -> str:
        """The mark that ends an answer: the tokenizer's end token, or the first token of its own behind an
        answer, also where a question follows, if there is one; empty where there is none."""
        behind = self.behind or ""
        followed = "" if self._sample is None else self._sample[3].partition(ANSWER)[2]
        eos = self.tokenizer.eos_token
        for text in (beginning(behind, followed), behind):
            if eos and eos in text:
                return eos
            places = [(text.find(mark), mark) for mark in self._added if mark in text]
            if places:
                return min(places)[1]
        return ""

    @property
    def ends(self) -> tuple[str, ...]:
        """The marks behind an answer: the template's, and the tokenizer's end token."""
        return tuple(mark for mark in (self.end, self.tokenizer.eos_token) if mark)

    @cached_property
    def header(self) -> str:
        """The text that opens an answer, as the template writes it in and behind a conversation alike."""
        if self._sample is None:
            return ""
        asked, opened, answered, _ = self._sample
        if not (opened.startswith(asked) and answered.startswith(asked)):
            return ""
        return beginning(opened[len(asked) :], answered[len(asked) :].partition(ANSWER)[0])

    def without_header(self, text: str) -> str:
        """A text without the header of an answer before it."""
        header = self.header.strip()
        begins = bool(header) and text.lstrip().startswith(header)
        return text.lstrip().removeprefix(header).lstrip() if begins else text

    def opens_answer(self, text: str) -> bool:
        """Whether a text ends with the header of an answer."""
        header = self.header.strip()
        return bool(header) and text.rstrip().endswith(header)

    def opened(self, text: str) -> str:
        """A text with the template's marks; the header of an answer where it ends with the user's turn."""
        behind = "" if self._sample is None else self._sample[0].partition("Question")[2]
        mark = behind.strip()
        if not (mark and self.header.strip() and text.rstrip().endswith(mark)):
            return text
        return text.rstrip().removesuffix(mark) + behind + self.header

    def wrote(self, text: str) -> bool:
        """Whether a text has been through the template: it has the marks around a question, one before the
        other, or it ends with the header of an answer. A question may speak of a mark too."""
        behind = "" if self._sample is None else self._sample[0].partition("Question")[2]
        closing = "".join(behind.split()[:1])
        before = text[: text.rindex(closing)] if closing in text else ""
        return any(mark in before for mark in self.marks if mark != closing) or self.opens_answer(text)

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """The marks of the template around a question."""
        text = "" if self._sample is None else self._sample[0]
        known = [mark for mark in self._added if mark in text]
        known += re.findall(r"[\[<]\S+[\]>](?=\s*Question)", text)
        bos, eos = self.tokenizer.bos_token, self.tokenizer.eos_token
        unmarked = {eos} if bos and self.header.lstrip().startswith(bos) else {bos, eos}
        return tuple({*known} - unmarked)

    @cached_property
    def _added(self) -> list[str]:
        """The tokens of the tokenizer that are never split, the longest first."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {}).values()
        return sorted({token.content for token in added if token.content.strip()}, key=len, reverse=True)

    def bare(self, turn: Message) -> Message:
        """The turn without the marks around it that the template writes, where its text brings them."""
        content, bos = in_one_text(turn)["content"], self.tokenizer.bos_token
        if not isinstance(content, str):
            return turn
        bare = content
        if turn["role"] == "assistant":
            bare = without_ends(self.without_header(content), self.ends)
        elif bos and bos not in self.marks and bos in self.source():
            bare = content.removeprefix(bos)
        return turn if bare == content else {**turn, "content": bare}

    def ended(self, text: str, since: int = 0) -> tuple[str, bool]:
        """The text up to the end mark of its last turn, which begins not before ``since``, and whether it has
        none."""
        if self.end and self.end in text[since:]:
            return text[: text.rindex(self.end) + len(self.end)], False
        if self.end and text[since:].rstrip().endswith(tuple(self._added)):
            return text.rstrip(), False  # another mark ends this turn, such as that of a call
        if self.behind is None:
            ended = text.rstrip().endswith(tuple(self._added))
            return (text.rstrip() if ended else text), not ended
        if self.behind and text.endswith(self.behind):
            text = text.removesuffix(self.behind) + self.behind.rstrip()
        return text, not self.behind.strip()

    def said(self, turns: Sequence[Message], text: str, arguments: Mapping[str, Any]) -> list[Range] | None:
        """The ranges of what the assistant says in the ``text`` of a conversation, end marks included, by the
        template's generation marks; None for a template without them."""
        if not (GENERATION.search(arguments["chat_template"]) and self._marks_answers):
            return None
        rendered, found = self._marked(turns, arguments)
        if rendered != text:
            return None  # the tokenizer writes conversations in a way of its own
        ranges: list[Range] = []
        for start, stop in found:
            if self.header and text.startswith(self.header, start):
                start += len(self.header)
            if self.end and text.startswith(self.end, stop):
                stop += len(self.end)
            elif self.end and self.end in text[start:stop]:
                stop = text.rindex(self.end, start, stop) + len(self.end)
            if ranges and ranges[-1][1] == start:  # the mark of the next speaker, which ends this turn
                start = ranges.pop()[0]
            ranges.append((start, stop))
        return ranges

    def _marked(self, turns: Sequence[Message], arguments: Mapping[str, Any]) -> tuple[str, list[Range]]:
        """A conversation with the ranges between generation marks, as transformers tells them."""
        written = [in_one_text(turn) for turn in turns]
        if isinstance(self.writer, ImagePrompts):
            written = [in_parts(turn) for turn in written]
        rendered: Any = render_jinja_template(
            [[{name: value for name, value in turn.items() if value is not None} for turn in written]],
            return_assistant_tokens_mask=True,
            **{**self.tokenizer.special_tokens_map, **arguments},
        )
        (text,), (ranges,) = rendered
        return text, ranges

    @cached_property
    def _marks_answers(self) -> bool:
        """Whether the generation marks are told where they stand: transformers misplaces those in macros."""
        if self._sample is None or not GENERATION.search(self.source()):
            return self._sample is None
        for system in ([], [{"role": "system", "content": "System"}]):
            turns = [
                *system,
                {"role": "user", "content": "Question"},
                {"role": "assistant", "content": ANSWER},
            ]
            if self.write(turns) is not None:
                text, ranges = self._marked(turns, {"chat_template": self.source(), **self.writing.options})
                return any(ANSWER in text[start:stop] for start, stop in ranges)
        return False

    def ranges_by_marks(self, added: tuple[Message, ...], text: str, start: int) -> list[Range] | None:
        """The assistant's turns by the marks around them; None where there are none, or not as many, or where
        a turn spells one."""
        if not (self.end and self.header):
            return None
        if any(mark in str(turn) for turn in added for mark in (self.end, self.header.strip())):
            return None
        ranges: list[Range] = []
        place = start
        for position, turn in enumerate(added):
            if turn["role"] != "assistant":
                continue
            if position > 0:
                place = text.find(self.header, place) + len(self.header)
            stop = text.find(self.end, place)
            stop = len(text) if stop < 0 else stop + len(self.end)
            if place < len(self.header) or (ranges and place < ranges[-1][1]):
                return None
            ranges.append((place, stop))
            place = stop
        return None if self.header in text[place:] else ranges

    def arguments(self, tools: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """The template for a row with ``tools`` or without, and what it is given besides the conversation:
        the ``options`` of a row on top of those of the data set."""
        return {
            "tools": list(tools) or None,
            "chat_template": self.source(bool(tools)),
            **self.writing.options,
            **options,
        }
