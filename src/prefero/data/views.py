"""The same examples under other responses or prompts, as some objectives ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prefero.data.cells import Cell, TokenExample
from prefero.errors import PreferoError

View = Callable[[Sequence[TokenExample], int | None, int], list[tuple[Cell, ...]]]
"""``(examples, max_length, seed)`` to the cells of every example."""


def mismatched(examples: Sequence[TokenExample], max_length: int | None, seed: int) -> list[tuple[Cell, ...]]:
    """Every prompt with the responses of another example: KTO estimates its baseline on such pairs
    (Ethayarajh et al., 2024, section 4.1).

    Which example lends its responses is one cycle through the whole data set, drawn with ``seed``: no example
    keeps its own, each is lent once, and the view never changes, so that its reference scores can be cached.
    An example with more responses than its lender repeats them. A response is cut at its end where it does
    not fit behind the prompt.

    Raises:
        PreferoError: there is one example alone.
    """
    if len(examples) < 2:
        raise PreferoError("Mismatched prompts and responses need two examples or more; there is one alone.")
    view = []
    for example, lender in zip(examples, one_cycle(len(examples), seed), strict=True):
        cells = []
        for position, cell in enumerate(example.cells):
            lent = examples[lender].cells[position % len(examples[lender].cells)]
            room = None if max_length is None else max_length - len(cell.context)
            cells.append(
                Cell(cell.context, lent.response[:room], None if lent.scored is None else lent.scored[:room])
            )
        view.append(tuple(cells))
    return view


def one_cycle(count: int, seed: int) -> NDArray[np.int64]:
    """A permutation of ``count`` positions that is a single cycle, so that none stays in its place."""
    order = np.random.default_rng(seed).permutation(count)
    successor = np.empty(count, dtype=np.int64)
    successor[order] = np.roll(order, -1)
    return successor


def with_prompt(
    examples: Sequence[TokenExample], max_length: int | None, seed: int
) -> list[tuple[Cell, ...]]:
    """The whole text as the response, from its second token on, which is the first that anything predicts;
    images are not scored."""
    view = []
    for example in examples:
        cells = []
        for cell in example.cells:
            text = np.concatenate([cell.context, cell.response])
            scored = None
            if cell.scored is not None or (text < 0).any():
                own = np.ones(len(cell.response), dtype=np.bool_) if cell.scored is None else cell.scored
                scored = np.concatenate([cell.context >= 0, own])[1:]
            cells.append(Cell(text[:1], text[1:], scored))
        view.append(tuple(cells))
    return view


def unprompted(examples: Sequence[TokenExample], max_length: int | None, seed: int) -> list[tuple[Cell, ...]]:
    """Every response without its prompt: behind what all prompts of the data begin and end with, which is the
    template of an empty prompt.

    Raises:
        PreferoError: the prompts share no token, so that a response's first token would have none before it.
    """
    contexts = [cell.context for example in examples for cell in example.cells]
    shortest = min(map(len, contexts))
    start = shared(contexts, shortest)
    end = shared([context[::-1] for context in contexts], shortest - start)
    first = contexts[0]
    template = np.concatenate([first[:start], first[len(first) - end :]])
    if not len(template):
        raise PreferoError(
            "The prompts share no token, so that their responses cannot be scored without them: use a "
            "tokenizer with a token for the beginning of a text, or a chat template."
        )
    return [
        tuple(Cell(template, cell.response, cell.scored) for cell in example.cells) for example in examples
    ]


def shared(rows: Sequence[NDArray[np.int64]], most: int) -> int:
    """How many of their first tokens all rows have in common, at most ``most``."""
    heads = np.stack([row[:most] for row in rows])
    same = (heads == heads[0]).all(0)
    return int(np.argmin(same)) if not same.all() else most


VIEWS: Mapping[str, View] = {
    "mismatched": mismatched,
    "with_prompt": with_prompt,
    "unprompted": unprompted,
}
