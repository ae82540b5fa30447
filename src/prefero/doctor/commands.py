"""The commands that findings recommend, spelled for the data and the model that were looked at."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Commands:
    """``data``, ``eval_data`` and ``model`` as they were named; what was not is a word in capitals.

    ``reading`` are settings of how rows are read, such as ``max_length``, by their names in a recipe's
    section ``data``.
    """

    data: str = "DATA"
    eval_data: str | None = None
    model: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)

    def train(self, method: str, **settings: object) -> str:
        """Train with a method. The dots of a setting are double underscores: ``objective__beta=0.2``."""
        words = ["prefero", "train", *self._named(), "--method", method, "--output", f"runs/{method}"]
        named = {name.replace("__", "."): value for name, value in settings.items()}
        return shlex.join([*words, *self._settings(named)])

    def on_share(self, method: str, share: float) -> str:
        """Train with a share of the data held out."""
        return replace(self, eval_data=str(share)).train(method)

    def compare(self, *methods: str) -> str:
        """Train with several methods side by side."""
        words = ["prefero", "compare", *self._named(), "--methods", ",".join(methods)]
        return shlex.join([*words, "--output", "runs/compared", *self._settings({})])

    def without(self, *keys: str, rows: int | None = None) -> str:
        """Write the data without the rows of some findings; ``rows`` have to be scored for that."""
        words = ["prefero", "inspect", self.data]
        words += ["--eval-data", self.eval_data] if self.eval_data else []
        words += ["--model", self.model] if self.model else []
        words += ["--rows", str(rows)] if rows else []
        words += [f"--{name.replace('_', '-')}={value}" for name, value in self.reading.items()]
        return shlex.join([*words, "--without", ",".join(keys), "--save", "kept.jsonl"])

    def _named(self) -> list[str]:
        held_out = ["--eval-data", self.eval_data] if self.eval_data else []
        return ["--model", self.model or "MODEL", "--data", self.data, *held_out]

    def _settings(self, more: Mapping[str, object]) -> list[str]:
        read = {f"data.{name}": value for name, value in self.reading.items()}
        return [f"{name}={value}" for name, value in {**read, **more}.items()]
