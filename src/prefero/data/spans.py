"""Annotations of tokens: from spans of characters, and from the differences of two responses.

A token belongs to a span that it shares a character with, white space at its beginning aside. All other
tokens (the end token, those of a chat template) have the column's own value for "nothing is said".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

from prefero.data.examples import Example, Response, Span, spoken
from prefero.data.render import Rendered
from prefero.errors import PreferoError


@dataclass(frozen=True, slots=True)
class Reading:
    """The value that a span gives its tokens (None: no value), and the value of all other tokens."""

    of: Callable[[Span], float | None]
    otherwise: float


def _score(name: str) -> Callable[[Span], float | None]:
    return lambda span: span.scores.get(name)


def _number(kind: str) -> Callable[[Span], float | None]:
    return lambda span: span.index if span.kind == kind else None


READINGS: Mapping[str, Reading] = {
    "token_weight": Reading(_score("weight"), 1),
    "image_weight": Reading(_score("image_weight"), 1),
    "token_score": Reading(_score("score"), 0),
    "segment": Reading(_number("segment"), 0),
    "step": Reading(_number("step"), 0),
}
"""The columns of tokens that spans fill."""


def annotated(responses: Sequence[Response], column: str) -> bool:
    """Whether any span of the responses says something for the column."""
    return any(READINGS[column].of(span) is not None for response in responses for span in response.spans)


def token_values(
    column: str,
    response: Response,
    rendered: Rendered,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    origin: str,
) -> NDArray[np.float64]:
    """One number per token of the rendered prompt and response, whose characters begin and end there. Raises
    :class:`PreferoError` where a chat template changes what the response says."""
    reading = READINGS[column]
    values = np.full(len(starts), float(reading.otherwise))
    said = [(span, value) for span in response.spans if (value := reading.of(span)) is not None]
    if not said:
        return values
    first, before = _first_characters(rendered.text, starts, ends), 0
    turns = spoken(response.content)
    if len(turns) != len(rendered.scored):
        raise PreferoError(
            f"{origin}: spans annotate the response, and the chat template marks {len(rendered.scored)} "
            f"texts of its {len(turns)} turns, so that they have no place in it. Use another template "
            "(data.template), or remove the spans."
        )
    for turn, (low, high) in zip(turns, rendered.scored, strict=True):
        shift = low + _place_of(turn, rendered.text[low:high], origin) - before
        for span, value in said:
            start, stop = max(span.start, before) + shift, min(span.end, before + len(turn)) + shift
            if start < stop:
                values[np.searchsorted(ends, start, "right") : np.searchsorted(first, stop)] = value
        before += len(turn)
    return values


def _first_characters(text: str, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first character of each token that is not white space, if it has one."""
    is_space = np.fromiter((character.isspace() for character in text), bool, len(text))
    next_visible = np.append(np.where(is_space, len(text), np.arange(len(text))), len(text))
    next_visible = np.minimum.accumulate(next_visible[::-1])[::-1]
    visible = next_visible[starts]
    return np.where(visible < ends, visible, starts)


def _place_of(turn: str, text: str, origin: str) -> int:
    """The position of the turn's first character in the text that a template makes of it."""
    for start in (0, 1):
        if text.startswith(turn, start):
            return start
    stripped = turn.strip()
    at = text.find(stripped)
    if at < 0:
        raise PreferoError(
            f"{origin}: spans annotate the response, and the chat template changes its text, so that they "
            "have no place in it. Use another chat_template, or remove the spans."
        )
    return at - (len(turn) - len(turn.lstrip()))


_WORDS = """
a about after again all also am an and any are as at be because been before being between both but
by can could did do does doing down during each few for from had has have having he her here hers
him his how i if in into is it its just may me might more most must my now of off on once only or
other our ours out over own same she should so some such than that the their theirs them then there
these they this those through to too under until up very was we were what when where which while who
whom why will with would you your yours
"""
FUNCTION_WORDS = tuple(_WORDS.split())
"""English words that carry grammar rather than content; negations carry content."""

WORD = re.compile(r"\w+|[^\w\s]")


def changed(
    first: Sequence[Hashable], second: Sequence[Hashable]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The runs of each sequence that the other does not have, as (start, stop): what is replaced and deleted
    of the first, and what is replaced and inserted of the second, where it is turned into the second."""
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    edits = [edit for edit in matcher.get_opcodes() if edit[0] != "equal"]
    return (
        [(start, stop) for _, start, stop, _, _ in edits if start < stop],
        [(start, stop) for _, _, _, start, stop in edits if start < stop],
    )


def differing_tokens(
    chosen: Sequence[int], rejected: Sequence[int], never: Collection[int] = frozenset()
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Marks of the tokens in which two responses differ, by the edits that turn the rejected one into the
    chosen one; tokens in ``never`` are not marked. Jiang et al., 2024, arXiv 2408.07471."""
    of_rejected, of_chosen = changed(rejected, chosen)
    return _marked(chosen, of_chosen, never), _marked(rejected, of_rejected, never)


def _marked(ids: Sequence[int], runs: Sequence[tuple[int, int]], never: Collection[int]) -> NDArray[np.bool_]:
    marks = np.zeros(len(ids), bool)
    for start, stop in runs:
        marks[start:stop] = [token not in never for token in ids[start:stop]]
    return marks


def differs(
    roles: Sequence[str | None], responses: Sequence[NDArray[np.int64]], never: Collection[int] = frozenset()
) -> list[NDArray[np.bool_]]:
    """:func:`differing_tokens` of the chosen and the rejected among the responses; no token of any other."""
    marks = [np.zeros(len(ids), bool) for ids in responses]
    if "chosen" in roles and "rejected" in roles:
        chosen, rejected = roles.index("chosen"), roles.index("rejected")
        marks[chosen], marks[rejected] = differing_tokens(
            responses[chosen].tolist(), responses[rejected].tolist(), never
        )
    return marks


def differing_spans(chosen: str, rejected: str) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """The words in which two texts differ, as spans of kind ``segment``, numbered from 1 on each side: the
    runs of words that an edit of one into the other replaces, deletes or inserts."""
    words = [list(WORD.finditer(text)) for text in (rejected, chosen)]
    of_rejected, of_chosen = changed(*([word.group() for word in side] for side in words))
    return _spans(words[1], of_chosen), _spans(words[0], of_rejected)


def mark_differences(example: Example) -> Example:
    """The pair with the words in which its responses differ marked as segments, and no other spans. Raises
    :class:`PreferoError` for an example that is no pair."""
    by_role = {response.role: response for response in example.responses}
    if not {"chosen", "rejected"} <= set(by_role):
        raise PreferoError(
            f"{example.origin or 'an example'} is no pair of a chosen and a rejected response."
        )
    texts = ("".join(spoken(by_role[role].content)) for role in ("chosen", "rejected"))
    spans = dict(zip(("chosen", "rejected"), differing_spans(*texts), strict=True))
    marked = (replace(response, spans=spans.get(response.role or "", ())) for response in example.responses)
    return replace(example, responses=tuple(marked))


def _spans(words: Sequence[re.Match[str]], runs: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    return tuple(
        Span(words[start].start(), words[stop - 1].end(), "segment", number)
        for number, (start, stop) in enumerate(runs, 1)
    )
