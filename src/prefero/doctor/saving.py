"""The rows of a source without those that findings name, as they stand there."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prefero.data.files import Source, load_rows
from prefero.errors import PreferoError


def save_rows(source: Source, file: str | Path, kept: Collection[str], *, split: str = "train") -> int:
    """Write the rows whose origins are ``kept`` to a file of JSON lines; how many there were.

    Raises :class:`PreferoError` as :func:`writable` does, and if the file cannot be written.
    """
    target = writable(file, source)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    count = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as lines:
            for row in load_rows(source, split=split):
                if row.origin in kept:
                    lines.write(json.dumps(dict(row.fields), ensure_ascii=False, default=_plain) + "\n")
                    count += 1
        os.replace(draft, target)
    except OSError as error:
        raise PreferoError(f"{target}: the rows cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return count


def writable(file: str | Path, source: Source) -> Path:
    """The file as a path. Raises :class:`PreferoError` if it is no .jsonl file, or the source itself."""
    target = Path(file)
    if target.suffix != ".jsonl":
        raise PreferoError(f"{target}: rows are saved as JSON lines; name a file that ends in .jsonl")
    same = isinstance(source, str | Path) and target.exists() and Path(source).exists()
    if same and target.samefile(str(source)):
        raise PreferoError(f"{target} holds the data that are read: save to another file")
    return target


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
