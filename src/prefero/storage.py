"""JSON lines, as run folders hold them: strict, and readable after a run that was killed while writing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def finite(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN and infinities are None, and what JSON does not know is text."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int) or value is None else str(value)


def line(record: Mapping[str, Any]) -> str:
    return json.dumps(finite(record), ensure_ascii=False) + "\n"


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSON lines, leaving out a line that was cut off. None if there is no file."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            try:
                record = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict):
                yield record
