"""Golden vectors: inputs and the numbers that they must give, one file an area."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "vectors"


@dataclass(frozen=True, slots=True)
class Vector:
    paper: str
    method: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    origin: str

    @property
    def key(self) -> tuple[str, str]:
        return self.paper, self.method


def read(path: Path) -> list[Vector]:
    """The vectors of one file: a JSON list of objects."""
    return [
        Vector(
            entry["paper"],
            entry["method"],
            entry.get("params", {}),
            entry.get("inputs", {}),
            entry["expected"],
            f"{path.name}[{index}]",
        )
        for index, entry in enumerate(json.loads(path.read_text(encoding="utf-8")))
    ]
