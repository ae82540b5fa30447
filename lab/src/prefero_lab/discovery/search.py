"""The search: propose, screen, train, keep; then a second look at the best, on data of its own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from prefero.bounded_json import read_as
from prefero.errors import PreferoError, number_of
from prefero.storage import write_json
from prefero.training.lock import NAME, FolderLock
from prefero_lab.discovery.archive import Archive, Entry, Proposal, Unreadable, signature
from prefero_lab.discovery.fitness import Score, Unfit
from prefero_lab.discovery.screening import screened

ARCHIVE, SETTINGS = "archive.jsonl", "search.json"

KNOWN: tuple[Proposal, ...] = (
    Proposal("logistic", {"method": "expression", "loss": "softplus(-z)", "beta": 0.1}, "DPO"),
    Proposal("hinge", {"method": "expression", "loss": "relu(1 - z)", "beta": 0.1}, "SLiC with a reference"),
    Proposal("square", {"method": "expression", "loss": "square(z - 0.5)", "beta": 0.1}, "IPO"),
    Proposal(
        "each side",
        {
            "method": "expression",
            "loss": "sigmoid(-beta * chosen_ratio) + sigmoid(beta * rejected_ratio)",
            "beta": 0.1,
        },
        "KTO of a pair, APO-zero",
    ),
)
"""Losses that people know, which every search starts from."""


class Proposer(Protocol):
    """Makes the next proposal out of what was tried; ``origin`` names it in the archive."""

    @property
    def origin(self) -> str: ...

    def __call__(self, entries: Sequence[Entry], numbers: random.Random) -> Proposal: ...


class Fitness(Protocol):
    """Scores an objective; ``settings`` are what must stay as it is while a search lasts."""

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def __call__(self, objective: Mapping[str, Any], draw: int = 0) -> Score: ...


def discover(
    output: Path,
    proposer: Proposer,
    fitness: Fitness,
    *,
    rounds: int,
    seed: int = 0,
    resume: bool = False,
    known: Sequence[Proposal] = KNOWN,
    report: Callable[[Entry, Archive], None] = lambda entry, archive: None,
) -> Archive:
    """Try the ``known`` objectives and ``rounds`` proposals; the archive is ``archive.jsonl`` in ``output``.

    Every proposal is drawn from a generator of its own, so a search that was killed and resumes with
    ``resume`` ends with the archive that it would have had; with more ``rounds`` it goes further. A rejected
    proposal takes up a round, and its reason stands in the archive.

    Raises:
        PreferoError: ``output`` holds a search and ``resume`` is not asked for, or one with other settings,
            or another process searches there; the proposer has no answer.
    """
    lock = FolderLock(output)
    lock.take()
    try:
        archive = opened(output, {"seed": seed, "fitness": dict(fitness.settings)}, resume=resume)
        while len(archive) < len(known) + rounds:
            number = len(archive)
            if number < len(known):
                entry = judged(archive, "known", known[number], fitness)
            else:
                entry = proposed(archive, proposer, random.Random(f"{seed} {number}"), fitness)
            archive.append(entry)
            report(entry, archive)
    finally:
        lock.release()
    return archive


def proposed(archive: Archive, proposer: Proposer, numbers: random.Random, fitness: Fitness) -> Entry:
    """The entry of the next proposal, or of an answer that is none."""
    try:
        made = proposer(archive.entries, numbers)
    except Unreadable as error:
        return Entry(len(archive), proposer.origin, "unreadable", {}, reason=str(error))
    except PreferoError as error:
        raise PreferoError(
            f"{error}. {archive.file} keeps {number_of(len(archive), 'attempt')}: continue with --resume"
        ) from error
    return judged(archive, proposer.origin, made, fitness)


def judged(archive: Archive, origin: str, made: Proposal, fitness: Fitness) -> Entry:
    """The entry of a proposal, screened and, if it passes, scored."""
    about = (len(archive), origin, made.name, dict(made.objective), made.thought, list(made.parents))
    own = signature(made.objective)
    read = (entry for entry in archive.entries if entry.objective)  # of an unreadable one there is none
    twin = next((entry for entry in read if signature(entry.objective) == own), None)
    if twin is not None:
        return Entry(*about, reason=f"it is number {twin.number} again")
    reason = screened(made.objective)
    if reason is not None:
        return Entry(*about, reason=reason)
    try:
        score = fitness(made.objective)
    except Unfit as error:
        return Entry(*about, reason=str(error))
    return Entry(*about, "scored", made.note, score.fitness, score.as_dict())


def opened(output: Path, settings: Mapping[str, Any], *, resume: bool) -> Archive:
    record = output / SETTINGS
    if record.is_file():
        if not resume:
            raise PreferoError(f"{output} holds a search; continue it with --resume, or name another folder")
        try:
            before = read_as(dict[str, Any], record.read_bytes(), str(record))
        except PreferoError as error:
            raise PreferoError(
                f"{error}: the settings of the search are lost, so that it cannot be continued; name another "
                "folder"
            ) from None
        if before != json.loads(json.dumps(settings)):
            raise PreferoError(
                f"{output} holds a search with other settings, {json.dumps(before)}, whose scores cannot be "
                f"compared with those of {json.dumps(settings)}; name another folder"
            )
    elif output.exists() and any(entry.name != NAME for entry in output.iterdir()):
        raise PreferoError(f"{output} holds something other than a search; name another folder")
    else:
        write_json(record, settings)
    return Archive(output / ARCHIVE)


def confirm(archive: Archive, fitness: Fitness) -> list[tuple[Entry, Score]]:
    """The best entry and the best known one, on pairs and prompts of their own.

    The best of many was chosen by its score, which is therefore too high: this one is not.
    """
    scored = archive.ranked()
    chosen = {entry.number: entry for entry in scored[:1]}
    chosen |= {entry.number: entry for entry in [one for one in scored if one.origin == "known"][:1]}
    return [(entry, fitness(entry.objective, draw=1)) for entry in chosen.values()]
