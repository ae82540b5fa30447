"""Rows from wherever people keep them: files, folders saved by ``datasets``, memory, the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefero.data.files import ENDINGS, Row, ending, read_file
from prefero.errors import PreferoError, nearest

if TYPE_CHECKING:
    import datasets

Source = str | Path | Iterable[Mapping[str, Any]]
"""What rows can be loaded from; a :class:`datasets.Dataset` is an iterable of mappings too."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one source, read as they are asked for; iterate again to read again."""

    name: str
    records: Iterable[Row]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.records)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path

    def __iter__(self) -> Iterator[Row]:
        return read_file(self.path)


@dataclass(frozen=True, slots=True)
class _Memory:
    name: str
    rows: Iterable[Mapping[str, Any]]

    def __iter__(self) -> Iterator[Row]:
        count = 0
        for count, fields in enumerate(self.rows, start=1):
            origin = f"{self.name}, row {count}"
            if isinstance(fields, Mapping):
                yield Row(origin, fields)
            else:
                kind = type(fields).__name__
                yield Row(origin, {}, f"{origin}: expected a mapping of fields, found {kind}")
        if count == 0:
            raise PreferoError(f"{self.name} holds no rows.")


def load_rows(source: Source, *, split: str = "train") -> Rows:
    """The rows of ``source``, each with its origin.

    ``source`` is a file (``.jsonl``, ``.json``, ``.csv``, each also as ``.gz``, or ``.parquet``), a folder
    written by ``save_to_disk`` or holding ``{split}.jsonl`` and the like, a ``datasets.Dataset`` or
    ``DatasetDict``, any iterable of mappings, or a name on the Hugging Face hub (``"owner/name"``, with a
    configuration ``"owner/name:config"``). ``split`` chooses among the splits of a source that has several;
    a single file has none and ignores it.

    Raises:
        PreferoError: the source is missing, empty, cut off or not what its ending says. A single row that
            cannot be read does not raise here: it carries its ``problem``.
    """
    if isinstance(source, str | Path):
        return _named(str(source), split)
    if hasattr(source, "keys") and hasattr(source, "values"):
        return _dataset_rows(_choose(source, split, "the data set"), f"data set, split {split!r}")
    if hasattr(source, "column_names"):
        return _dataset_rows(source, "data set")
    rows = source if isinstance(source, list | tuple) else list(source)
    return Rows("rows", _Memory("rows", rows))


def _named(name: str, split: str) -> Rows:
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, split)
    if path.exists():
        ending(path)
        return Rows(path.name, _File(path))
    looks_like_file = name.startswith(("/", ".", "~")) or name.lower().endswith(ENDINGS)
    if looks_like_file or not HUB_NAME.fullmatch(name):
        raise PreferoError(f"{name}: there is no such file{_neighbours(path)}.")
    return _hub(name, split, path)


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f", nor the folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir())
    return nearest(path.name, names)


def _folder(path: Path, split: str) -> Rows:
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        import datasets

        try:
            loaded = datasets.load_from_disk(str(path))
        except Exception as error:
            raise PreferoError(f"{path}: the data set saved here cannot be opened: {error}") from error
        chosen = _choose(loaded, split, str(path)) if isinstance(loaded, dict) else loaded
        return _dataset_rows(chosen, path.name if chosen is loaded else f"{path.name}/{split}")
    files = sorted(entry for entry in path.iterdir() if entry.name.lower().endswith(ENDINGS))
    fitting = [file for file in files if file.name.split(".")[0] == split]
    if len(fitting) == 1:
        return Rows(fitting[0].name, _File(fitting[0]))
    found = ", ".join(file.name for file in files) or "nothing of the kind"
    raise PreferoError(
        f"{path}: expected a folder written by datasets' save_to_disk, or one file named {split}.jsonl "
        f"(or .json, .csv, .parquet, .gz); found {found}. Name the file itself, or another split."
    )


def _choose(splits: Any, split: str, where: str) -> Any:
    if split in splits:
        return splits[split]
    names = ", ".join(map(str, splits))
    raise PreferoError(
        f"{where} has no split {split!r}{nearest(split, map(str, splits))}. Its splits: {names}."
    )


def _hub(name: str, split: str, path: Path) -> Rows:
    import datasets

    repository, _, configuration = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, configuration or None, split=split)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PreferoError(
            f"{name!r} is neither a file here{_neighbours(path)} nor could it be loaded from the Hugging "
            f"Face hub (split {split!r}): {reason}. Check the name and the connection, or download the data "
            "set and name its file."
        ) from error
    return _dataset_rows(loaded, f"{name}, split {split!r}")


def _dataset_rows(dataset: datasets.Dataset, name: str) -> Rows:
    return Rows(name, _Memory(name, _encoded(dataset)))


def _encoded(dataset: Any) -> Any:
    """With its images as they are stored: decoded all at once they would fill the memory."""
    import datasets

    for column, feature in (getattr(dataset, "features", None) or {}).items():
        inner = getattr(feature, "feature", feature)
        if isinstance(inner, datasets.Image) and inner.decode:
            kept = datasets.Image(mode=inner.mode, decode=False)
            dataset = dataset.cast_column(column, kept if inner is feature else type(feature)(kept))
    return dataset
