"""Making an example fit: the oldest turns of the prompt go first, then its oldest tokens.

What responses share is cut once, for the longest of them, so that it stays shared. A response is cut only
where it leaves the prompt no token at all; it then loses its end, and so its end token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from prefero.data.cells import Cell
from prefero.data.examples import Text
from prefero.errors import PreferoError

Ids = NDArray[np.int64]


@dataclass(slots=True)
class Truncation:
    """Where the prompts and the responses stand that lost something, and how many tokens went."""

    prompts: list[str] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    tokens: int = 0

    def notes(self, max_length: int | None) -> list[str]:
        """What a user should know, and can do about it."""
        notes = []
        if self.prompts:
            notes.append(
                f"prompts that lost their oldest turns or tokens to fit max_length = {max_length}: "
                f"{len(self.prompts)}, first {self.prompts[0]}. Raise max_length to keep them whole."
            )
        if self.responses:
            notes.append(
                f"responses longer than max_length = {max_length} by themselves, which lost their ends, and "
                f"their prompts all but a token: {len(self.responses)}, first {self.responses[0]}. Raise "
                "max_length, or remove these rows."
            )
        return notes


def fit(
    cells: Sequence[Cell],
    max_length: int,
    prompts: Sequence[Text],
    encode: Callable[[int, Text], Ids],
    start: Ids,
    dropped: Truncation,
    origin: str,
) -> tuple[Cell, ...]:
    """``cells`` in at most ``max_length`` tokens each; what is lost is added to ``dropped``.

    ``prompts`` are what the cells' contexts were made of, and ``encode(cell, prompt)`` makes such a context
    of another prompt. Cells that share a prompt hold the same context array. ``start`` stays at the beginning
    of a context whose oldest tokens are dropped.

    Raises:
        PreferoError: images of the newest turns are among the tokens that would be dropped.
    """
    cells = [_cut_response(cell, max_length - 1, dropped, origin) for cell in cells]
    members: dict[int, list[int]] = {}
    for at, cell in enumerate(cells):
        members.setdefault(id(cell.context), []).append(at)
    lost = 0
    for group in members.values():
        context = cells[group[0]].context
        room = max_length - max(len(cells[at].response) for at in group)
        if len(context) <= room:
            continue
        shorter = _shorten(prompts[group[0]], room, partial(encode, group[0]))
        shorter = context if shorter is None else shorter
        if len(shorter) > room:
            shown = shorter
            shorter = _newest(shorter, room, start)
            if (shown < 0).sum() > (shorter < 0).sum():
                raise PreferoError(
                    f"{origin}: the images do not fit: prompt and response have "
                    f"{len(shown) + max_length - room} tokens, {(shown < 0).sum()} of them of images, "
                    f"which are not cut, and max_length is {max_length}. Raise max_length, make the images "
                    "smaller, or remove the row"
                )
        lost += len(context) - len(shorter)
        for at in group:
            cells[at] = replace(cells[at], context=shorter)
    if lost:
        dropped.prompts.append(origin)
    dropped.tokens += lost
    return tuple(cells)


def _cut_response(cell: Cell, limit: int, dropped: Truncation, origin: str) -> Cell:
    if len(cell.response) <= limit:
        return cell
    dropped.responses.append(origin)
    dropped.tokens += len(cell.response) - limit
    scored = None if cell.scored is None else cell.scored[:limit]
    return Cell(cell.context, cell.response[:limit], scored)


def _shorten(prompt: Text, room: int, encode: Callable[[Text], Ids]) -> Ids | None:
    """The conversation without as few of its oldest turns as make it fit, or if even the shortest does not,
    that one. None for text, which has no turns, and for a conversation of one."""
    choices = shorter_prompts(prompt)
    if not choices:
        return None
    low, high = 0, len(choices) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(encode(choices[middle])) <= room else (middle + 1, high)
    return encode(choices[low])


def shorter_prompts(prompt: Text) -> list[Text]:
    """The conversation without its oldest turns, the longest first; the system turn stays, and so does the
    last turn of the user with all that follows it."""
    if isinstance(prompt, str):
        return []
    system = prompt[:1] if prompt and prompt[0]["role"] == "system" else ()
    turns = prompt[len(system) :]
    starts = [at for at, turn in enumerate(turns) if turn["role"] == "user" and at > 0]
    return [(*system, *turns[at:]) for at in starts]


def _newest(context: Ids, room: int, start: Ids) -> Ids:
    if len(context) <= room:
        return context
    kept = len(start) if room > len(start) and np.array_equal(context[: len(start)], start) else 0
    return np.concatenate([context[:kept], context[len(context) - (room - kept) :]])
