"""The archive of a search: one JSON line per proposal, in their order, complete even after a kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic

from prefero.bounded_json import read_as
from prefero.errors import PreferoError, number_of
from prefero.objectives.expressions import parse
from prefero.objectives.registry import find
from prefero.sections import STRICT
from prefero.storage import append_line, replacing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to try: ``objective`` is what :func:`prefero.objectives.from_config` builds,
    ``parents`` are the numbers of the entries that it was made of; ``note`` tells what was left out of it."""

    name: str
    objective: Mapping[str, Any]
    thought: str = ""
    parents: tuple[int, ...] = ()
    note: str = ""


class Unreadable(Exception):
    """A proposer answered, and not with a proposal; the message is the reason."""


@pydantic.dataclasses.dataclass(frozen=True, slots=True, config=STRICT)
class Entry:
    """The result of a proposal. ``fitness`` is None where it was rejected, for the ``reason``; of a scored
    one this is the note of the proposal."""

    number: int
    origin: str
    name: str
    objective: Mapping[str, Any]
    thought: str = ""
    parents: Sequence[int] = field(default_factory=list)
    status: Literal["scored", "rejected"] = "rejected"
    reason: str = ""
    fitness: float | None = None
    measures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wording(self) -> str:
        """The objective in a line."""
        own = dict(self.objective)
        if own.get("method") == "expression" and not own.keys() - {"method", "loss", "beta"}:
            return printable(f"{own.get('loss')}  (β = {own.get('beta', 0.1)})")
        return printable(json.dumps(own, ensure_ascii=False))


class Archive:
    """The entries of a search, and the file that holds them. A line that a kill cut off is dropped, and a
    warning says so.

    Raises :class:`~prefero.errors.PreferoError` for a file that is damaged otherwise, naming the line.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        *whole, cut_off = (file.read_bytes() if file.is_file() else b"").split(b"\n")
        self.entries = [entry_of(text, file, place) for place, text in enumerate(whole)]
        if cut_off:
            logger.warning(
                "%s ends in the middle of a line, where the search was killed; %s kept, and that attempt is "
                "made again",
                file,
                number_of(len(whole), "attempt"),
            )
            with replacing(file) as draft:
                draft.write_bytes(b"".join(text + b"\n" for text in whole))

    def __len__(self) -> int:
        return len(self.entries)

    def append(self, entry: Entry) -> None:
        append_line(self.file, asdict(entry))
        self.entries.append(entry)

    def ranked(self) -> list[Entry]:
        """The scored entries, the fittest first, earlier ones first among equals."""
        return ranked(self.entries)


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    return sorted(
        (entry for entry in entries if entry.fitness is not None), key=lambda entry: -(entry.fitness or 0.0)
    )


def entry_of(text: bytes, file: Path, place: int) -> Entry:
    whole = f"{file}, line {place + 1}"
    try:
        entry = read_as(Entry, text, whole)
    except PreferoError as error:
        raise PreferoError(f"{error}: this is no entry of a search; name another folder") from None
    if entry.number != place:
        raise PreferoError(
            f"{whole} has number {entry.number}, not {place}: lines are missing or out of order; name "
            "another folder"
        )
    if (entry.status == "scored") != (entry.fitness is not None):
        raise PreferoError(f"{whole} is {entry.status} with fitness {entry.fitness}; name another folder")
    return entry


def printable(text: str) -> str:
    """The text with everything that a terminal would act on as an escape sequence."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def canonical(objective: Mapping[str, Any]) -> dict[str, Any]:
    """The objective with its expression, if it has one, in canonical form.

    Raises :class:`~prefero.errors.PreferoError` for an expression that cannot be read.
    """
    own = dict(objective)
    if own.get("method") == "expression" and isinstance(own.get("loss"), str):
        own["loss"] = parse(own["loss"]).text
    return own


def signature(objective: Mapping[str, Any]) -> str:
    """The same for objectives that are the same, whether or not they write down what is the default."""
    with suppress(PreferoError):
        objective = {**find(str(objective.get("method"))).defaults, **objective}
        objective = canonical(objective)
    return json.dumps(objective, sort_keys=True, default=str)
