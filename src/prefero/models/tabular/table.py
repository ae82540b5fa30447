"""Examples whose prompts and responses stand in a table: looked up, where other models would tokenise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from prefero.data.arrange import VIEWS, arrange, asker_of, prompt_of, with_view
from prefero.data.examples import Example
from prefero.data.schema import SCHEMA
from prefero.data.summary import Treatment, summarise
from prefero.data.tokenize import TokenDataset, columns_of
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError, nearest

TOKEN_COLUMNS = {
    name for name, spec in SCHEMA.items() if spec.axes == "example response token" and not spec.drawn
}

LISTED = 5
"""Number of entries that an error message names."""


@dataclass(frozen=True)
class Table:
    """Prompts, and the responses that there are to each.

    A prompt's id is its place, a response's that of its text among all the texts of the table; the same text
    to two prompts has one id. In memory either is a single token.
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
        return {
            (prompt, self._response_ids[text]): place
            for prompt, responses in enumerate(self.responses)
            for place, text in enumerate(responses)
        }

    @property
    def width(self) -> int:
        """The largest number of responses that a prompt has."""
        return max(map(len, self.responses), default=0)

    @cached_property
    def _prompt_ids(self) -> Mapping[str, int]:
        return {prompt: number for number, prompt in enumerate(self.prompts)}

    @cached_property
    def _response_ids(self) -> Mapping[str, int]:
        return {text: number for number, text in enumerate(self.texts)}

    def prompt(self, text: object, origin: str) -> int:
        """The id of a prompt. Raises :class:`PreferoError` naming the row where the table has no such."""
        content = _plain(text, "prompt", origin)
        if content not in self._prompt_ids:
            raise _unknown(content, "prompt", self.prompts, origin)
        return self._prompt_ids[content]

    def response(self, prompt: int, text: object, origin: str) -> int:
        """The id of a response to a prompt, by the prompt's; raises :class:`PreferoError` naming the row if
        there is none."""
        content = _plain(text, "response", origin)
        number = self._response_ids.get(content, -1)
        if (prompt, number) not in self.places:
            what = f"response to the prompt {_shown(self.prompts[prompt])}"
            raise _unknown(content, what, self.responses[prompt], origin)
        return number


def _unknown(text: str, what: str, known: Sequence[str], origin: str) -> PreferoError:
    more = f", … ({len(known)} in all)" if len(known) > LISTED else ""
    listed = ", ".join(map(_shown, known[:LISTED])) + more
    return PreferoError(
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
    response is one token, its id. ``views`` are as :func:`prefero.data.tokenize.tokenize` takes them.

    Raises :class:`PreferoError` for a missing role or column, a prompt or a response that the table does not
    have, with the row, annotations of the inside of a response, and views that cut texts or are unknown.
    """
    asker = asker_of(for_method)
    if inside := sorted(set(columns) & TOKEN_COLUMNS):
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
        if view in VIEWS:
            others = VIEWS[view](looked_up, None, seed)
            _refuse_missing(others, arranged, table, view)
        else:
            others = [
                _cells(replace(example, prompt=prompt_of(example, view, for_method)), table)
                for example in arranged
            ]
        looked_up = with_view(looked_up, view, others, [roles.index(role) for role in read])
    return TokenDataset(tuple(looked_up), roles, summarise(arranged, looked_up, roles, Treatment()), arranged)


def _cells(example: Example, table: Table) -> tuple[Cell, ...]:
    cells = []
    for response in example.responses:
        text = example.prompt if response.prompt is None else response.prompt
        prompt = table.prompt(text, example.origin)
        number = table.response(prompt, response.content, example.origin)
        cells.append(Cell(np.asarray([prompt]), np.asarray([number])))
    return tuple(cells)


def _refuse_missing(
    view: Sequence[tuple[Cell, ...]], examples: Sequence[Example], table: Table, name: str
) -> None:
    """Refuse pairs of a prompt and a response, put together for a view, that the table does not have."""
    for example, cells in zip(examples, view, strict=True):
        for cell in cells:
            prompt, response = int(cell.context[0]), int(cell.response[0])
            table.response(prompt, table.texts[response], f"{example.origin}, for the view {name!r}")


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
