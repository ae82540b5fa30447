"""What was measured, on disk: a JSON file for every arm and seed, written whole, used again while it counts.

A file's name has a fingerprint of what its numbers depend on: the module of the experiment's class, the
experiment's settings, the arm's, and the seed. The rest of the library's code is not in it, or no result
would outlive an edit; each file records a digest of that code, so that a table can say that it has changed.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import prefero
from prefero.storage import finite
from prefero_lab.papers.paper import Arm, Check, Experiment

HARNESS = ("papers", "cli", "report")
"""Parts of the library that no number depends on."""


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
    if isinstance(subject, Check):
        code, settings = [subject.run], {"check": subject.statement}
    else:
        code = [one for one in type(subject).__mro__ if one.__module__ != "builtins"]
        settings = {"experiment": type(subject).__qualname__, **subject.settings}
    content = {
        "code": [_source(sys.modules[one.__module__].__file__) for one in code],
        "settings": settings,
        "arm": None if arm is None else arm.settings,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def _source(file: str | None) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


@functools.cache
def library() -> str:
    """A digest of the library's code, without what only runs and shows."""
    root = Path(inspect.getfile(prefero)).parent
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        place = file.relative_to(root)
        if place.parts[0] not in HARNESS:
            digest.update(str(place).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


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
        write(file, asdict(found))


def write(file: Path, content: Mapping[str, Any]) -> None:
    """JSON that appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(finite(content), ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, file)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
