"""Examples whose prompts and responses stand in a table: looked up, where other models would tokenise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from prefero.data.arrange import VIEWS, arrange
from prefero.data.examples import Example
from prefero.data.schema import OTHER_PROMPTS, SCHEMA
from prefero.data.summary import Treatment, summarise
from prefero.data.tokenize import TokenDataset, columns_of
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError, nearest

LISTED = 5
"""Number of entries that an error message names."""


@dataclass(frozen=True)
class Table:
    """Prompts, and the responses that there are to each.

    A prompt's id is its place. A response's id is that of its text among all the texts of the table, in their
    order; the same text to two prompts has one id. In memory either is a single token.
    """

    prompts: tuple[str, ...]
    responses: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.responses):
            raise PreferoError(
                f"the table has {len(self.prompts)} prompts and responses to {len(self.responses)}; every "
                "prompt has a list of its own"
            )
        _refuse_repeated(self.prompts, "the table", "prompt")
        for prompt, responses in zip(self.prompts, self.responses, strict=True):
            if not responses:
                raise PreferoError(f"the table has no response to {prompt!r}")
            _refuse_repeated(responses, f"the table, prompt {prompt!r}", "response")

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All responses, each once."""
        return tuple(dict.fromkeys(text for responses in self.responses for text in responses))

    @cached_property
    def places(self) -> Mapping[tuple[int, int], int]:
        """The place of a response among those to a prompt, by the ids of both."""
        ids = {text: number for number, text in enumerate(self.texts)}
        return {
            (prompt, ids[text]): place
            for prompt, responses in enumerate(self.responses)
            for place, text in enumerate(responses)
        }

    @property
    def width(self) -> int:
        """The largest number of responses that a prompt has."""
        return max(map(len, self.responses), default=0)

    @cached_property
    def _ids(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        return (
            {prompt: number for number, prompt in enumerate(self.prompts)},
            {text: number for number, text in enumerate(self.texts)},
        )

    def prompt(self, text: object, origin: str) -> int:
        """The id of a prompt. Raises :class:`PreferoError` naming the row where the table has no such."""
        return self._find(self._ids[0], _plain(text, "prompt", origin), "prompt", self.prompts, origin)

    def response(self, prompt: int, text: object, origin: str) -> int:
        """The id of a response to a prompt, by the prompt's. Raises :class:`PreferoError` naming the row
        where the prompt has no such."""
        content, known = _plain(text, "response", origin), self.responses[prompt]
        number = self._ids[1].get(content)
        if number is None or (prompt, number) not in self.places:
            what = f"response to the prompt {_shown(self.prompts[prompt])}"
            return self._find({}, content, what, known, origin)
        return number

    def _find(self, ids: Mapping[str, int], text: str, what: str, known: Sequence[str], origin: str) -> int:
        if text in ids:
            return ids[text]
        more = f", … ({len(known)} in all)" if len(known) > LISTED else ""
        listed = ", ".join(map(_shown, known[:LISTED])) + more
        raise PreferoError(
            f"{origin or 'an example'}: the model's table has no {what} that reads {_shown(text)}"
            f"{nearest(text, known)}. It has {listed}. Correct the row, or make the model with it."
        )


def look_up(
    examples: Sequence[Example],
    table: Table,
    *,
    roles: tuple[str, ...],
    columns: Collection[str] = frozenset(),
    views: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    seed: int = 0,
    for_method: str = "",
) -> TokenDataset:
    """``examples``, arranged as ``roles`` and ``columns`` ask, as places of a table: every prompt and every
    response is one token, its id.

    ``views`` are as :func:`prefero.data.tokenize.tokenize` takes them, without those that cut texts.

    Raises:
        PreferoError: a missing role or column; a prompt or a response that the table does not have, with the
            row; annotations of the inside of a response, which has none; an unknown view.
    """
    asker = for_method or "the objective"
    if inside := [name for name in sorted(columns) if _of_tokens(name)]:
        raise PreferoError(
            f"{asker} reads the column {inside[0]!r}, which annotates parts of a response: the responses of "
            "a table are whole. Use a method that reads none, or a language model."
        )
    if "unprompted" in views:
        raise PreferoError(
            f"{asker} scores responses without their prompts, which a table cannot: it has none"
        )
    arranged = arrange(examples, roles, columns, for_method=for_method)
    wanted = [name for name in sorted(columns) if not SCHEMA[name].drawn]
    looked_up = [
        TokenExample(_cells(example, table), columns_of(example, wanted), index)
        for index, example in enumerate(arranged)
    ]
    for view, read in views.items():
        others = _view(view, arranged, looked_up, table, seed, asker)
        at = [roles.index(role) for role in read]
        looked_up = [
            replace(
                example, views={**example.views, view: tuple(cells[place] for place in at) if read else cells}
            )
            for example, cells in zip(looked_up, others, strict=True)
        ]
    return TokenDataset(tuple(looked_up), roles, summarise(arranged, looked_up, roles, Treatment()), arranged)


def _cells(example: Example, table: Table) -> tuple[Cell, ...]:
    cells = []
    for response in example.responses:
        text = example.prompt if response.prompt is None else response.prompt
        prompt = table.prompt(text, example.origin)
        cells.append(_cell(prompt, table.response(prompt, response.content, example.origin)))
    return tuple(cells)


def _cell(prompt: int, response: int) -> Cell:
    return Cell(np.asarray([prompt], dtype=np.int64), np.asarray([response], dtype=np.int64))


def _view(
    view: str,
    arranged: Sequence[Example],
    looked_up: Sequence[TokenExample],
    table: Table,
    seed: int,
    asker: str,
) -> list[tuple[Cell, ...]]:
    if view in VIEWS:
        others = VIEWS[view](looked_up, None, seed)
        for example, cells in zip(arranged, others, strict=True):
            for cell in cells:
                prompt, response = int(cell.context[0]), int(cell.response[0])
                table.response(prompt, table.texts[response], f"{example.origin}, for the view {view!r}")
        return others
    if view not in OTHER_PROMPTS:
        known = [*VIEWS, *OTHER_PROMPTS]
        raise PreferoError(f"unknown view {view!r}{nearest(view, known)}. Views: {', '.join(known)}.")
    part = OTHER_PROMPTS[view]
    for example in arranged:
        if view not in example.prompts:
            raise PreferoError(
                f"{example.origin or 'an example'}: {asker} reads the responses under another prompt too, in "
                f"the field {part.field!r} ({part.meaning}); a row that has it: {part.sample}."
            )
    return [_cells(replace(example, prompt=example.prompts[view]), table) for example in arranged]


def _of_tokens(name: str) -> bool:
    spec = SCHEMA.get(name)
    return spec is not None and spec.axes == "example response token" and not spec.drawn


def _plain(text: object, what: str, origin: str) -> str:
    if isinstance(text, str):
        return text
    raise PreferoError(
        f"{origin or 'an example'}: the {what} is no plain text, which is all that a table has"
    )


def _refuse_repeated(texts: Iterable[str], where: str, what: str) -> None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            raise PreferoError(f"{where}: the {what} {_shown(text)} stands there twice")
        seen.add(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
