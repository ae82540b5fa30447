"""The prompt of a row and its responses as one conversation, whatever the layout.

A prompt is text or messages, under one of many names, with a system text, earlier turns or an input in fields
of their own. Responses are text, one message, messages, or whole conversations that begin with the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from prefero.data.examples import Example, Message, Response, Text, spoken
from prefero.data.formats.fields import (
    BOOKKEEPING,
    SAID,
    SPEAKER,
    Fields,
    are_messages,
    first_of,
    is_blank,
    number_of,
    spelled,
)
from prefero.data.formats.names import (
    HISTORY,
    OPTIONAL_INPUT,
    PROMPTS,
    SYSTEMS,
    first_of_prompts,
    is_nothing,
)
from prefero.data.formats.responses import read_response

Messages = tuple[Message, ...]

TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}
MARKED = re.compile(r"\s*Human:.*\n\nAssistant:\s*", re.DOTALL)
"""A prompt with the marks of a transcript, up to the assistant's turn."""

EMPTY_PROMPT = "the prompt is empty"
KEPT_MARKS = "the prompt has marks of speakers in its text, which are kept"

WORDS = 3
"""Words of an input that hardly stand in a prompt by chance."""

LONG = 12
"""Words that two responses hardly begin with by chance."""

SPEAKS = re.compile(
    r"(?:^\W*|\n[^\w\n]*)(?:human|user|assistant|question|q|instruction)\b\W*(?::|\n)"
    r"|(?-i:\bUSER:)|<[|｜]|\[INST\]|<start_of_turn>",
    re.IGNORECASE,
)
"""The mark of a speaker, as transcripts and chat templates have it."""

ANSWERS = re.compile(
    r"(?:^\W*|\n[^\w\n]*)(?:assistant|bot|ai|(?:chat)?gpt|model|response|output|answer|a(?![^\n]*\n\W*b\b))"
    r"\b[^\w\n]*:[*_]*|(?-i:\bASSISTANT:)|\[/INST\]|<\|(?:im_start|start_header_id)\|>assistant"
    r"(?:<\|end_header_id\|>)?\n*|<[|｜]assistant[|｜]>\n*|<start_of_turn>model\n*",
    re.IGNORECASE,
)
"""The mark of the assistant, behind which an answer begins."""

ASKS = {
    "output": re.compile(r"\W*(?:instruction|input)\b", re.IGNORECASE),
    "model": re.compile(r"\W*(?:user|human)\b", re.IGNORECASE),
}
"""The marks of the assistant that are words of questions too, and the user's mark of such a text."""

WRITTEN_OUT = re.compile(
    r"\W*(?:human|user)\b\W*:.*\n\W*(?:assistant|bot|ai|gpt)\b\W*:\s*|.*\[INST\].*\[/INST\]\s*"
    r"|(?:.*\n)?\W*instruction\b\W*:.*\n\W*response\b\W*:\s*|.*\bUSER:.*\bASSISTANT:\s*"
    r"|.*<\|im_start\|>assistant\s*"
    r"|.*<\|assistant\|>\s*|.*<\|start_header_id\|>assistant<\|end_header_id\|>\s*"
    r"|.*<start_of_turn>model\s*",
    re.IGNORECASE | re.DOTALL,
)
"""A prompt that is a transcript in marks other than those that become turns."""


def read_prompt(fields: Fields) -> Text | None:
    """The prompt of a row with its input and earlier turns, None if no field holds one."""
    name = first_of_prompts(fields.values)
    if name is None:
        return None
    _note_other_prompt(fields, name)
    prompt: Text
    if _is_turn_list(fields, name):
        prompt = _in_turns(fields, name, _turn_list(fields, name))
    else:
        prompt = fields.turns(name)
    if isinstance(prompt, str):
        for extra in OPTIONAL_INPUT.get(name, ()):
            text = fields.look(extra)
            if isinstance(text, str) and prompt.strip() and not is_nothing(text):
                fields.get(extra)
                prompt = prompt if _stands_in(prompt, text.strip()) else f"{prompt}\n\n{text}"
    earlier = _history(fields) if name != HISTORY else ()
    return (*earlier, *as_user(prompt)) if earlier else prompt


def _note_other_prompt(fields: Fields, name: str) -> None:
    """Have it said where another field than in most rows is the prompt, such as the input below it. Raises
    :class:`PreferoError` where that field is no part of the prompt in these rows."""
    usual = fields.habits.prompt
    if usual is None or usual.partition(".")[0] == name.partition(".")[0] or is_blank(fields.look(name)):
        return
    elsewhere = name in fields.habits.beside and name not in OPTIONAL_INPUT.get(usual, ())
    if not is_blank(fields.look(usual)):
        fields.note(f"the prompt is {name}, though there is {usual}, which is the prompt of other rows")
    elif elsewhere and isinstance(fields.look(name), str):
        found = "is null or missing" if fields.look(usual) is None else "is empty"
        fields.fail(
            usual,
            f"{found}; {name}, which stands beside it in other rows, is not the prompt there",
            "a prompt, as other rows have one",
        )
    else:
        fields.note(f"the prompt is {name} alone: the row has no {usual}, which is the prompt of other rows")


def _stands_in(prompt: str, text: str) -> bool:
    """Whether a prompt holds a text already, as lines of its own or in so many words, or there is none."""
    return (
        not text
        or f"\n{text}\n" in f"\n{prompt.strip()}\n"
        or (len(text.split()) >= WORDS and text in prompt)
    )


def prompt_alone(fields: Fields) -> Text:
    """The prompt of a row whose responses do not matter. Raises :class:`PreferoError` where it has none."""
    prompt = read_prompt(fields)
    if prompt is None:
        refuse_without_prompt(fields)
    return with_system(fields, _unmarked(prompt, [])[0] if isinstance(prompt, str) else prompt)


def refuse_without_prompt(fields: Fields, found: str = "missing") -> NoReturn:
    """Raises :class:`PreferoError` that names the columns that may hold the prompt."""
    others = unknown_texts(fields)
    fields.fail(
        "prompt",
        f"{found}; columns that are not read: {', '.join(others) or 'none that holds a text'}",
        f"a prompt in one of {', '.join(PROMPTS[:6])}, …, or in the column of --columns prompt=COLUMN",
    )


def unknown_texts(fields: Fields) -> list[str]:
    """The fields that are not read and may hold a prompt: texts and conversations, also in objects that have
    the name of a prompt."""
    inner = [
        part
        for name in PROMPTS
        if "." not in name and isinstance(held := fields.look(name), Mapping) and name not in fields.read
        for part in texts_within(name, held)
    ]
    inner += [name for name in fields.unread if "." in name and name.rpartition(".")[2] in PROMPTS]
    return inner + [
        name
        for name in fields.unread
        if not BOOKKEEPING.fullmatch(name)
        and "chosen" not in name
        and "rejected" not in name
        and (isinstance(value := fields.look(name), str) or (isinstance(value, list) and _speaks(value)))
        and number_of(value) is None
    ]


def texts_within(name: str, held: Mapping[str, Any]) -> list[str]:
    """The names of the texts and conversations in an object, also in the objects that it holds."""
    names: list[str] = []
    for key, value in held.items():
        if isinstance(value, Mapping) and not are_messages(value):
            names += texts_within(f"{name}.{key}", value)
        elif isinstance(value, str) or are_messages(value):
            names.append(f"{name}.{key}")
    return names


def _speaks(value: list[Any]) -> bool:
    return isinstance(value[0], str) or (
        isinstance(value[0], dict) and first_of(value[0], SPEAKER) is not None
    )


def as_user(prompt: Text) -> Messages:
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt


def with_responses(
    fields: Fields,
    names: Sequence[str],
    responses: Sequence[Response],
    *,
    conversational: bool = False,
    implied: bool = False,
) -> Example:
    """The prompt of a row, and of each response what it adds to it.

    ``names`` are the fields of the responses, for errors. The prompt is a conversation where the layout is
    ``conversational``, and wherever a response or some row of the source speaks of turns. Text without a
    prompt field begins with the prompt where that may be ``implied``.
    """
    contents: list[Any] = [response.content for response in responses]
    prompt = None if _hold_turns(fields, names) else read_prompt(fields)
    if isinstance(prompt, tuple) and _ends_with(prompt, contents):
        prompt = prompt[:-1]
    texts = all(isinstance(content, str) for content in contents)
    if texts and is_blank(prompt) and fields.habits.prompted:
        name = first_of_prompts(fields.values) or next((n for n in PROMPTS if n in fields.values), None)
        if name is not None:
            fields.fail(name, "is empty", "a prompt, as other rows have one")
    if texts and prompt is None:
        if not implied:
            refuse_without_prompt(fields)
        prompt, contents = _implied(fields, contents)
    elif texts and isinstance(prompt, str):
        prompt, contents = _of_texts(fields, prompt, contents)
    elif all(isinstance(content, tuple) for content in contents):
        prompt, contents = _of_messages(fields, names, prompt, contents)
    elif not texts:
        fields.fail(names[-1], "one side is text, the other messages", "both sides in the same form")
    if conversational or fields.habits.talks or not texts:
        prompt = as_user(prompt or "")
    if any(WRITTEN_OUT.fullmatch(turn["content"]) for turn in as_user(prompt or "") if _is_user_text(turn)):
        fields.note(KEPT_MARKS)
    if isinstance(prompt, tuple) and prompt and prompt[-1]["role"] == "assistant":
        turns = "which the responses continue" if texts else "behind which the responses are other turns"
        fields.note(f"the prompt ends with a turn of the assistant, {turns}")
    for name, response, content in zip(names, responses, contents, strict=True):
        if content != response.content or isinstance(content, tuple):
            fields.not_empty(content, name)
    return Example(
        with_system(fields, prompt or ""),
        tuple(
            replace(response, content=content) for response, content in zip(responses, contents, strict=True)
        ),
    )


def _is_user_text(turn: Message) -> bool:
    return turn["role"] == "user" and isinstance(turn.get("content"), str)


def read_sides(fields: Fields, names: Sequence[str], roles: Sequence[str | None]) -> list[Response]:
    """The responses in these fields: texts, messages, or objects that hold one.

    Lists of turns, beside a prompt that is the list of the user's, become conversations.
    """
    prompt = first_of_prompts(fields.values)
    if prompt is not None and _hold_turns(fields, names):
        asked = _turn_list(fields, prompt)
        return [
            Response(_alternating(fields, name, asked), role) for name, role in zip(names, roles, strict=True)
        ]
    return [read_response(fields, name, role) for name, role in zip(names, roles, strict=True)]


def _hold_turns(fields: Fields, names: Sequence[str]) -> bool:
    """Whether the prompt is a list of the user's turns, and each response one of the assistant's."""
    prompt = first_of_prompts(fields.values)
    return prompt is not None and all(_is_turn_list(fields, name) for name in (prompt, *names))


def _ends_with(prompt: Messages, contents: Sequence[Any]) -> bool:
    """Whether a conversation besides the responses ends with one of them."""
    last = prompt[-1]["content"] if prompt and prompt[-1]["role"] == "assistant" else None
    return last is not None and any(spoken(content) == (last,) for content in contents)


def _is_turn_list(fields: Fields, name: str) -> bool:
    """Whether a field is a list of texts, or text that spells one where the column does."""
    return name in fields.habits.turn_lists or are_texts(fields.look(name))


def are_texts(value: Any) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(text, str) for text in value)


def _turn_list(fields: Fields, name: str) -> list[str]:
    expected = "a list of turns, each a text"
    turns = fields.list(name, expected)
    if not are_texts(turns):
        fields.fail(name, "one of its turns is no text", expected)
    return turns


def _alternating(fields: Fields, name: str, asked: Sequence[str]) -> Messages:
    answers = _turn_list(fields, name)
    if len(answers) != len(asked):
        fields.fail(name, f"{len(answers)} answers to {len(asked)} turns of the user", "as many of each")
    turns: list[Message] = []
    for question, answer in zip(asked, answers, strict=True):
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return tuple(turns)


def _history(fields: Fields) -> Messages:
    """Earlier turns: pairs of what the user and the assistant said, messages, or texts in turns."""
    history = fields.look(HISTORY)
    if isinstance(history, str):
        # Text that spells no turns stays unread, and is told as such.
        history = spelled(history)
    if is_blank(history):
        return ()
    fields.get(HISTORY)
    expected = "pairs of a user's and an assistant's text, or messages"
    if not isinstance(history, list | tuple):
        fields.fail(HISTORY, f"found {type(history).__name__}", expected)
    if not all(isinstance(turn, list | tuple | str) for turn in history):
        turns = fields.as_turns(history, HISTORY, expected)
        return turns if not isinstance(turns, str) else as_user(turns)
    texts = [text for pair in history for text in ([pair] if isinstance(pair, str) else pair)]
    if len(texts) % 2 or not all(isinstance(text, str) for text in texts):
        fields.fail(HISTORY, "a turn without its answer", expected)
    return _alternately(texts)


def _alternately(texts: Sequence[str]) -> Messages:
    roles = ("user", "assistant")
    return tuple({"role": roles[place % 2], "content": text} for place, text in enumerate(texts))


def _in_turns(fields: Fields, name: str, texts: Sequence[str]) -> Messages:
    """A list of texts as the turns of the user and the assistant, the user's first and last."""
    if len(texts) % 2 == 0:
        fields.fail(
            name, f"{len(texts)} turns, so that the assistant has the last", "the user's turn at last"
        )
    return _alternately(texts)


def with_system(fields: Fields, prompt: Text) -> Text:
    """The prompt behind the system text of the row; an empty one is none."""
    name = next((name for name in SYSTEMS if not is_blank(fields.look(name))), None)
    if name is None or is_nothing(fields.look(name)):
        return prompt
    text, turns = fields.text(name), as_user(prompt)
    own = turns[0]["content"] if turns and turns[0]["role"] == "system" else None
    if own is None:
        return ({"role": "system", "content": text}, *turns)
    if own != text:
        fields.fail(name, "the conversation has another system turn", "one system text")
    return prompt


def _implied(fields: Fields, texts: Sequence[Any]) -> tuple[Text, list[Text]]:
    """The common beginning of two texts as their prompt: up to the last mark of the assistant in it, else to
    the last white space, so that no word is split. Refused where it may be chance, and another column the
    prompt."""
    length = min(shared(texts[0], text) for text in texts[1:])
    end = _answer_begins(texts[0], length)
    prompt = texts[0][:end]
    if not prompt:
        while length and not texts[0][length - 1].isspace():
            length -= 1
        prompt = texts[0][:length].rstrip()
    by_chance = len(prompt.split()) < LONG and not SPEAKS.search(prompt)
    if (by_chance and (unknown_texts(fields) or _unread_prompts(fields))) or (
        not prompt and fields.habits.prompted
    ):
        refuse_without_prompt(fields, "missing, and the two sides share no beginning")
    if not prompt:
        fields.note(f"{EMPTY_PROMPT}: the two sides share no beginning")
    elif end:
        fields.note(KEPT_MARKS)
    else:
        fields.note(
            "the prompt is what the two sides begin with: no field holds it, and no mark of the assistant "
            "tells where the answers begin"
        )
    return _unmarked(prompt, [text[len(prompt) :] for text in texts])


def _answer_begins(text: str, length: int) -> int:
    """The place behind the last mark of the assistant in the first ``length`` characters of a text, which
    others share; 0 where there is none or a user speaks behind it. A word that questions have too, such as
    ``Output:``, is a mark where the text begins with the user's mark that belongs to it and the others
    differ in the same line."""
    for mark in reversed(list(ANSWERS.finditer(text))):
        word, behind = re.sub(r"\W", "", mark[0]).lower(), text[mark.end() : length]
        if len(text[: mark.end()].rstrip()) > length:
            continue
        if word in ASKS and (not ASKS[word].match(text) or "\n" in behind.strip()):
            continue
        answered = SPEAKS.search(text[: mark.end()]) and not SPEAKS.search(f"x{behind}")
        return min(mark.end(), length) if answered else 0
    return 0


def _unread_prompts(fields: Fields) -> list[str]:
    """The fields of prompts that hold objects of which none is known as a prompt."""
    return [
        name
        for name in PROMPTS
        if isinstance(held := fields.look(name), Mapping) and held and name not in fields.read
    ]


def _of_texts(fields: Fields, prompt: str, texts: Sequence[Any]) -> tuple[Text, list[Text]]:
    """The prompt without the marks of a transcript, and the responses without the prompt, where those of the
    source repeat theirs or it is too long to be repeated by chance."""
    said = prompt.strip()
    repeated = fields.habits.repeats_prompt or len(said.split()) >= LONG
    if repeated and all(text.lstrip().startswith(said) for text in texts):
        texts = [text.lstrip().removeprefix(said) for text in texts]
    elif len(said.split()) >= WORDS and any(text.lstrip().startswith(said) for text in texts):
        fields.note("a response begins with the prompt, and keeps it")
    if any(text.lstrip().startswith("Human:") and "\n\nAssistant:" in text for text in texts):
        fields.note("a response is a whole transcript, and keeps it")
    return _unmarked(prompt, texts)


def _unmarked(prompt: str, texts: Sequence[Any]) -> tuple[Text, list[Text]]:
    if not MARKED.fullmatch(prompt):
        return prompt, list(texts)
    turns, _ = split_transcript(f"\n\n{prompt.strip()}")
    return turns, [text.removeprefix(" ") for text in texts]


def split_transcript(transcript: str) -> tuple[Messages, str]:
    """The turns of a transcript before its last one, and the text of the last one, the assistant's."""
    opening, *pieces = TURN.split(transcript)
    speakers, texts = pieces[0::2], pieces[1::2]
    turns: list[dict[str, str]] = [{"role": "system", "content": opening}] if opening.strip() else []
    for speaker, text in zip(speakers[:-1], texts[:-1], strict=True):
        role = ROLES[speaker]
        if turns and turns[-1]["role"] == role:
            # Chat templates want alternating turns; the mark stays, so that plain text renders as it was.
            turns[-1]["content"] += f"\n\n{speaker}:{text}"
        else:
            turns.append({"role": role, "content": text.removeprefix(" ")})
    response = texts[-1]
    if turns and turns[-1]["role"] == "assistant":
        turns[-1]["content"] += "\n\nAssistant:"
    else:
        response = response.removeprefix(" ")
    return tuple(turns), response


def _of_messages(
    fields: Fields, names: Sequence[str], prompt: Text | None, sides: Sequence[Any]
) -> tuple[Text, list[Text]]:
    """Messages as responses: the assistant's turns alone, or whole conversations with the prompt in them."""
    length = min(len(side) for side in sides) - 1
    common = min([length, *(shared(sides[0], side) for side in sides[1:])])
    beginning = sides[0][:common]
    whole = common > 0 and beginning[0]["role"] != "assistant"
    if is_blank(prompt):
        prompt = None
    if prompt is None or _is_response(prompt, sides):
        if not whole:
            refuse_without_prompt(fields, "missing, and the two sides begin differently")
        return beginning, [side[common:] for side in sides]
    given = as_user(prompt)
    if isinstance(prompt, str) and MARKED.fullmatch(prompt):
        given, _ = split_transcript(f"\n\n{prompt.strip()}")
    if all(side[0]["role"] == "assistant" for side in sides):
        return given, list(sides)
    if all(shared(given, side) == len(given) < len(side) for side in sides):
        return given, [side[len(given) :] for side in sides]
    if whole and says_all(beginning, given):
        return beginning, [side[common:] for side in sides]
    ending = next((n for n in range(common, 0, -1) if _equal(given[-n:], beginning[:n])), 0)
    if ending:
        return given, [side[ending:] for side in sides]
    if given[-1]["role"] == "assistant":
        return given, list(sides)
    name = first_of_prompts(fields.values) or "prompt"
    fields.fail(
        name,
        f"{names[0]} begins with a turn of {sides[0][0]['role']} and does not contain it",
        f"conversations in {' and '.join(names)} that contain the prompt, or the assistant's turns alone",
    )


def _is_response(prompt: Text, sides: Sequence[Messages]) -> bool:
    """Whether a conversation beside whole conversations is one of them, such as messages beside chosen."""
    return isinstance(prompt, tuple) and len(prompt) > 1 and any(prompt == side for side in sides)


def says_all(conversation: Messages, given: Messages) -> bool:
    """Whether the turns of ``given`` stand in the conversation, one behind the other."""
    count = len(given)
    return any(_equal(conversation[n : n + count], given) for n in range(len(conversation) - count + 1))


def _equal(first: Messages, second: Messages) -> bool:
    def said(turn: Message) -> Any:
        content = turn[first_of(turn, SAID) or "content"]
        return turn["role"], content.strip() if isinstance(content, str) else content

    return len(first) == len(second) and all(said(a) == said(b) for a, b in zip(first, second, strict=True))


def shared(first: Sequence[Any], second: Sequence[Any]) -> int:
    """The length of the common beginning."""
    differing = (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differing, min(len(first), len(second)))
