"""What all sides of one comparison share: where the workload lies, and how it is trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Settings:
    """``folder`` holds ``model/`` (weights and tokenizer), ``pairs.jsonl``, and ``ordered.jsonl``: the same
    pairs in the order in which prefero draws them with this seed.

    ``max_length`` is in tokens, ``threads`` of 0 leaves torch's own choice. ``logging_steps`` is the default
    of both libraries; prefero measures its monitored signals in those steps, TRL its own in every step.
    """

    folder: Path
    pairs_per_step: int = 8
    beta: float = 0.1
    learning_rate: float = 1e-5
    max_length: int = 1024
    logging_steps: int = 10
    threads: int = 0
    seed: int = 0

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs.jsonl"

    @property
    def ordered(self) -> Path:
        return self.folder / "ordered.jsonl"

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self) | {"folder": str(self.folder)}))

    @classmethod
    def load(cls, path: Path) -> Settings:
        values = json.loads(path.read_text())
        return cls(**values | {"folder": Path(values["folder"])})

    def apply_threads(self) -> None:
        if self.threads:
            torch.set_num_threads(self.threads)


@dataclass(frozen=True, slots=True)
class Round:
    """One side, run once in a process of its own.

    ``losses`` has one number an optimizer step; ``step_seconds``, by the clock, and ``cpu_seconds``, of all
    cores together, leave out the first step. ``tokens`` is the
    digest of the token ids in training order. ``setup_seconds`` is what happened once, before the first step
    (loading, tokenising, filling a reference cache); imports are not in it.
    """

    side: str
    losses: list[float]
    step_seconds: list[float]
    cpu_seconds: list[float]
    setup_seconds: float
    peak_bytes: int
    tokens: str
    notes: dict[str, str | float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Round:
        return cls(**json.loads(path.read_text()))


def digest(pairs: Iterable[tuple[Sequence[int], Sequence[int], Sequence[int]]]) -> str:
    """A fingerprint of (prompt, chosen, rejected) token ids, in the order given."""
    sha = hashlib.sha256()
    for pair in pairs:
        sha.update(json.dumps([list(map(int, ids)) for ids in pair]).encode())
    return sha.hexdigest()[:16]
