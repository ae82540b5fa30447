"""Key segments of dialogues: the turns that decided how two sessions went, as many on either side.

Kong et al., 2025, arXiv 2501.01821.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefero.data.examples import Message
from prefero.errors import PreferoError


def key_turns(chosen: int, rejected: int, first: int, count: int | None = None) -> range:
    """The agent's turns, from 0, that make up the key segment of two sessions with so many of them.

    It begins with the turn ``first``, where the worse session went wrong, and has ``count`` turns (None: all
    that follow) or as many as the shorter session has left, so that it is equally long on both sides.

    Raises:
        PreferoError: a session ends before the segment begins.
    """
    stop = min(chosen, rejected, chosen if count is None else first + count)
    if first < 0 or stop <= first:
        raise PreferoError(
            f"the key segment begins with turn {first}, counted from 0, and the sessions have {chosen} and "
            f"{rejected} turns of the agent: no equally long segments can be taken from them. Choose an "
            "earlier turn, or leave the pair out."
        )
    return range(first, stop)


def key_segment(
    prompt: Sequence[Message],
    chosen: Sequence[Message],
    rejected: Sequence[Message],
    first: int,
    count: int | None = None,
) -> dict[str, Any]:
    """A row with the two sessions up to the end of their key segment, whose turns are marked.

    ``chosen`` and ``rejected`` are what follows the prompt; they may share turns before ``first``.
    """
    agent = [
        [at for at, turn in enumerate(side) if turn["role"] == "assistant"] for side in (chosen, rejected)
    ]
    turns = key_turns(len(agent[0]), len(agent[1]), first, count)
    marks = [{"turn": turn + 1, "segment": number} for number, turn in enumerate(turns, 1)]
    row: dict[str, Any] = {"prompt": list(prompt)}
    for role, side, own in (("chosen", chosen, agent[0]), ("rejected", rejected, agent[1])):
        row |= {role: list(side[: own[turns[-1]] + 1]), f"{role}_spans": [dict(mark) for mark in marks]}
    return row
