"""The archive of a search: one JSON line per proposal, in their order, complete even after a kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from prefero.errors import PreferoError
from prefero.objectives.expressions import parse
from prefero.storage import line, read_lines, replacing


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to try: ``objective`` is what :func:`prefero.objectives.from_config` builds,
    ``parents`` are the numbers of the entries that it was made of."""

    name: str
    objective: Mapping[str, Any]
    thought: str = ""
    parents: tuple[int, ...] = ()


class Unreadable(Exception):
    """A proposer answered, and not with a proposal; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The result of a proposal. ``fitness`` is None where it was rejected, for the ``reason``."""

    number: int
    origin: str
    name: str
    objective: Mapping[str, Any]
    thought: str = ""
    parents: Sequence[int] = ()
    status: Literal["scored", "rejected"] = "rejected"
    reason: str = ""
    fitness: float | None = None
    measures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wording(self) -> str:
        """The objective in a line."""
        own = dict(self.objective)
        if own.get("method") == "expression" and not own.keys() - {"method", "loss", "beta"}:
            return f"{own.get('loss')}  (β = {own.get('beta', 0.1):g})"
        return json.dumps(own, ensure_ascii=False)


class Archive:
    """The entries of a search, and the file that holds them. A line that a kill cut off is dropped."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.entries = [entry_of(record, file, place) for place, record in enumerate(read_lines(file))]
        text = file.read_bytes() if file.is_file() else b""
        if text and not text.endswith(b"\n"):
            with replacing(file) as draft:
                draft.write_bytes(text[: text.rfind(b"\n") + 1])

    def __len__(self) -> int:
        return len(self.entries)

    def append(self, entry: Entry) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line(asdict(entry)))
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(entry)

    def ranked(self) -> list[Entry]:
        """The scored entries, the fittest first, earlier ones first among equals."""
        return ranked(self.entries)


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    return sorted(
        (entry for entry in entries if entry.fitness is not None), key=lambda entry: -(entry.fitness or 0.0)
    )


def entry_of(record: Mapping[str, Any], file: Path, place: int) -> Entry:
    try:
        entry = Entry(**record)
    except TypeError as error:
        raise PreferoError(
            f"{file}, line {place + 1} is no entry of a search ({error}); name another folder"
        ) from None
    if entry.number != place:
        raise PreferoError(
            f"{file}, line {place + 1} has number {entry.number}, not {place}: lines are missing or out of "
            "order; name another folder"
        )
    if entry.fitness is not None and not math.isfinite(entry.fitness):
        raise PreferoError(
            f"{file}, line {place + 1} has the fitness {entry.fitness}, which is no number that ranks; name "
            "another folder"
        )
    return entry


def canonical(objective: Mapping[str, Any]) -> dict[str, Any]:
    """The objective with its expression, if it has one, in canonical form.

    Raises :class:`~prefero.errors.PreferoError` for an expression that cannot be read.
    """
    own = dict(objective)
    if own.get("method") == "expression" and isinstance(own.get("loss"), str):
        own["loss"] = parse(own["loss"]).text
    return own


def signature(objective: Mapping[str, Any]) -> str:
    """The same for objectives that are the same."""
    with suppress(PreferoError):
        objective = canonical(objective)
    return json.dumps(objective, sort_keys=True)
