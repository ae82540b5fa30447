"""From spans of characters to annotations of tokens.

A token belongs to a span that it shares a character with, white space at its beginning aside: a word's token
often holds the space before it. What no span covers, the end token and what a chat template puts around the
response among it, has the column's own value for "nothing is said".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefero.data.examples import Response, Span, spoken
from prefero.data.render import Rendered
from prefero.errors import PreferoError

Offsets = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where each token of a text begins and ends, in characters; neither ever falls."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a span says about its tokens (None: nothing), and what holds where no span says anything."""

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
    offsets: Callable[[str], Offsets],
    origin: str,
) -> NDArray[np.float64]:
    """One number a token of the rendered response, its end token included.

    Raises:
        PreferoError: a chat template changes what the response says, so that the spans have no place.
    """
    reading = READINGS[column]
    said = [(span, value) for span in response.spans if (value := reading.of(span)) is not None]
    turns = iter(spoken(response.content))
    parts, before = [], 0
    for segment in rendered.segments:
        starts, ends = offsets(segment.text)
        values = np.full(len(starts), float(reading.otherwise))
        if segment.scored and said:
            turn = next(turns)
            shift = _place_of(turn, segment.text, origin) - before
            first = _first_characters(segment.text, starts, ends)
            for span, value in said:
                low, high = max(span.start, before) + shift, min(span.end, before + len(turn)) + shift
                if low < high:
                    values[np.searchsorted(ends, low, "right") : np.searchsorted(first, high)] = value
            before += len(turn)
        parts.append(values)
    if rendered.end:
        parts.append(np.full(1, float(reading.otherwise)))
    return np.concatenate(parts)


def _first_characters(text: str, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each token begins behind the white space at its beginning; a token of white space alone where it
    begins."""
    is_space = np.fromiter((character.isspace() for character in text), bool, len(text))
    next_visible = np.append(np.where(is_space, len(text), np.arange(len(text))), len(text))
    next_visible = np.minimum.accumulate(next_visible[::-1])[::-1]
    visible = next_visible[starts]
    return np.where(visible < ends, visible, starts)


def _place_of(turn: str, text: str, origin: str) -> int:
    """Where the turn's own first character stands in the text that a template made of it."""
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
