"""Results on disk: a JSON file for every arm and seed, written whole, and used again while it is valid.

A file's name has a fingerprint of what its numbers follow from: the code of the experiment or check, by its
syntax tree, the experiment's settings, the arm's, and the seed (:mod:`prefero_lab.papers.syntax` says what
counts as a change). The code of worlds and of the library is not in it, or no result would outlive an edit;
each file records a digest of that code, so that a table can say that it has changed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import prefero
import prefero_lab
from prefero.storage import write_json
from prefero_lab.papers.paper import Arm, Check, Evidence, Experiment, Paper
from prefero_lab.papers.syntax import digest, digest_of_files

HARNESS = ("papers", "cli", "report")
"""Parts of library and laboratory that :func:`library` leaves out: they run and show, or are in the
fingerprints."""


@dataclass(frozen=True)
class Measured:
    """One arm of one seed (or one seed of a check). ``metrics`` have a number a prompt; ``library`` is a
    digest of the code that measured them."""

    name: str
    seed: int
    metrics: Mapping[str, Sequence[float]]
    curves: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    details: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    library: str = ""
    commit: str = ""
    machine: str = ""


def fingerprint(subject: Experiment[Any, Any] | Check, arm: Arm | None, seed: int) -> str:
    """Of everything that an arm's numbers of one seed follow from, in 16 digits."""
    return _hashed({**_measurement(subject, arm), "seed": seed})


def evidence_digest(paper: Paper) -> str:
    """Of everything that a paper's recorded results follow from, in 16 digits: how its claims and checks are
    measured, on which seeds, and what is expected. How they are worded does not count."""
    return _hashed([_evidence(one) for one in paper.evidence])


def _evidence(evidence: Evidence) -> dict[str, Any]:
    seeds = {"judged_from": evidence.judged_from, "seeds": evidence.seeds}
    if isinstance(evidence, Check):
        return {**seeds, "check": _measurement(evidence, None)}
    arms = {arm.name: _measurement(evidence.experiment, arm) for arm in evidence.arms}
    return {**seeds, "arms": arms, "expected": [asdict(one) for one in evidence.expected]}


def _measurement(subject: Experiment[Any, Any] | Check, arm: Arm | None) -> dict[str, Any]:
    """How a number is measured: everything but the seed."""
    if isinstance(subject, Check):
        run = subject.run.func if isinstance(subject.run, functools.partial) else subject.run
        name = run.__qualname__
        # Functions that are defined inside another have the code of that one in common.
        told_apart = {"check": subject.statement} if run is not subject.run or "<" in name else {}
        return {"code": digest(run), "settings": {"function": name, **told_apart}}
    packages = {one: one.__module__.partition(".")[0] for one in type(subject).__mro__}
    classes = [one for one, package in packages.items() if package not in sys.stdlib_module_names]
    return {
        "code": digest(*classes),
        "settings": {"experiment": type(subject).__qualname__, **subject.settings},
        "arm": None if arm is None else arm.settings,
    }


def _hashed(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def library() -> str:
    """A digest of the syntax trees of the library and the worlds, without what only runs and shows. Moved and
    reworded code has the same."""
    roots = [Path(str(package.__file__)).parent for package in (prefero, prefero_lab)]
    return digest_of_files(
        file
        for root in roots
        for file in root.rglob("*.py")
        if file.relative_to(root).parts[0] not in HARNESS
    )


class Results:
    """What was measured of all papers, in ``folder/results``: papers that have an arm in common measure it
    once. ``fresh`` takes nothing that was there before."""

    def __init__(self, folder: str | Path, *, fresh: bool = False) -> None:
        self.folder, self.fresh = Path(folder), fresh
        self._written: set[Path] = set()

    def place(self, seed: int, mark: str) -> Path:
        return self.folder / "results" / f"seed{seed}-{mark}.json"

    def get(self, name: str, seed: int, mark: str) -> Measured | None:
        """What is on disk, or None. A file that cannot be read is measured anew."""
        file = self.place(seed, mark)
        if self.fresh and file not in self._written:
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            metrics = {
                key: [_number(value) for value in values] for key, values in content["metrics"].items()
            }
            return Measured(**{**content, "metrics": metrics, "name": name})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, found: Measured, mark: str) -> None:
        """Written whole or not at all."""
        file = self.place(found.seed, mark)
        self._written.add(file)
        write_json(file, asdict(found), indent=None)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
