"""The commands that findings recommend, and a copy of the data without the rows of some findings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefero.data.files import Source, load_rows
from prefero.errors import PreferoError
from prefero.storage import check_output, replacing

BY_MODEL = frozenset({"truncation", "reference_gap", "displacement"})
"""The findings whose rows depend on the model."""


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands for the inspected data and model, as the user named them. ``reading`` are settings of the
    section ``data`` of a recipe, such as ``max_length``."""

    data: str = "DATA"
    eval_data: str | None = None
    model: str | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)

    def train(self, method: str, **settings: object) -> str:
        """Train with a method; a double underscore stands for a dot: ``objective__beta=0.2``."""
        words = ["prefero", "train", *self._named(), "--method", method, "--output", f"runs/{method}"]
        dotted = {name.replace("__", "."): value for name, value in settings.items()}
        return shlex.join([*words, *self._settings(dotted)])

    def compare(self, *methods: str) -> str:
        """Train with several methods side by side."""
        words = ["prefero", "compare", *self._named(), "--methods", ",".join(methods)]
        return shlex.join([*words, "--output", "runs/compared", *self._settings({})])

    def preview(self) -> str:
        """Show the first rows as they are trained."""
        model = ["--model", self.model] if self.model else []
        others = {"eval_split", "limit"} | (set() if self.model else {"template", "max_length", "too_long"})
        return shlex.join(["prefero", "preview", self.data, *model, *self._options(others)])

    def without(self, *keys: str, rows: int | None = None) -> str:
        """Write the data without the rows of some findings; ``rows`` have to be scored for that."""
        words = ["prefero", "inspect", self.data]
        words += ["--eval-data", self.eval_data] if self.eval_data else []
        scored = bool(self.model and BY_MODEL & set(keys))
        words += ["--model", str(self.model)] if scored else []
        words += ["--rows", str(rows)] if rows else []
        words += self._options(set() if scored else {"template"})
        return shlex.join([*words, "--without", ",".join(keys), "--save", "kept.jsonl"])

    def _options(self, others: Collection[str]) -> list[str]:
        """How the data are read, as options of a command; without ``others``, which it does not take."""
        reading = ((name, value) for name, value in self.reading.items() if name not in others)
        return [f"--{name.replace('_', '-')}={value}" for name, value in reading]

    def _named(self) -> list[str]:
        held_out = ["--eval-data", self.eval_data] if self.eval_data else []
        return ["--model", self.model or "MODEL", "--data", self.data, *held_out]

    def _settings(self, more: Mapping[str, object]) -> list[str]:
        reading = {f"data.{name}": value for name, value in self.reading.items()}
        return [f"{name}={value}" for name, value in {**reading, **more}.items()]


def save_rows(source: Source, file: str | Path, kept: Collection[str], *, split: str = "train") -> int:
    """Write the rows whose origins are ``kept``, unchanged, to a file of JSON lines; return their number."""
    target = writable(file, source)
    count = 0
    try:
        with replacing(target) as draft, draft.open("w", encoding="utf-8") as lines:
            for row in load_rows(source, split=split):
                if row.origin in kept:
                    lines.write(json.dumps(dict(row.fields), ensure_ascii=False, default=_plain) + "\n")
                    count += 1
            if not count:
                raise PreferoError(f"no row is left without those of the findings: {target} is not written")
    except OSError as error:
        raise PreferoError(f"{target}: the rows cannot be written: {error}") from error
    return count


def writable(file: str | Path, source: Source) -> Path:
    """The file as a path, if it is a .jsonl file that can be written, and not the source itself
    (:class:`PreferoError`)."""
    target = Path(file)
    if target.suffix != ".jsonl":
        raise PreferoError(f"{target}: rows are saved as JSON lines; name a file that ends in .jsonl")
    check_output(target)
    same = isinstance(source, str | Path) and target.exists() and Path(source).exists()
    if same and target.samefile(str(source)):
        raise PreferoError(f"{target} holds the data that are read: save to another file")
    return target


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
