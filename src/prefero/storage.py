"""Files of runs: strict JSON, JSON lines that survive a run killed while writing, and files that appear whole
or not at all; and the folder of what is computed once and kept."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from prefero.errors import PreferoError


class NotWrittenError(PreferoError, OSError):
    """A file or a folder that cannot be written: the disk is full, read-only or broken, or it is gone."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn every error of the disk inside into a :class:`NotWrittenError` that names ``path``; those of files
    elsewhere, which are read meanwhile, stay what they are."""
    try:
        yield
    except NotWrittenError:
        raise
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and (error.errno is None or _is_elsewhere(error.filename, path)):
            raise  # no errno: of the hub, whose errors are of this class too
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise NotWrittenError(f"{path} cannot be written: {reason}") from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        reason = "the disk took only a part of it"  # torch.save gives places in a file
        raise NotWrittenError(f"{path} cannot be written: {reason}") from error


def _is_elsewhere(named: Any, path: Path) -> bool:
    """Whether the file that an error names is neither beside or in ``path`` nor a folder above it."""
    if not isinstance(named, str | bytes | os.PathLike):  # none, or the number of an open file
        return False
    file, path = Path(os.fsdecode(named)).absolute(), path.absolute()
    return not file.is_relative_to(path.parent) and not path.is_relative_to(file)


@contextmanager
def replacing(file: Path, *, sync: bool = False) -> Iterator[Path]:
    """A draft beside ``file`` to write to, which takes its place in one step if the block ends without an
    error. ``sync`` waits until the draft is on the disk, which a file that vouches for others needs.

    Raises :class:`NotWrittenError` where the disk does not take it.
    """
    draft = file.with_name(f".{file.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            if sync:
                with draft.open("rb") as handle:
                    os.fsync(handle.fileno())
            os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A draft of ``folder``, which is new or empty, to write files in; they take their place if the block
    ends without an error.

    Raises :class:`NotWrittenError` where the disk does not take it.
    """
    folder = folder.absolute()
    is_there = folder.is_dir()  # and may be a mount or a link, which nothing can take the place of
    draft = (
        folder if is_there else folder.parent
    ) / f".{folder.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}"
    with writing(folder):
        try:
            draft.mkdir(parents=True)
            yield draft
            if not is_there:
                os.replace(draft, folder)
            for file in list(draft.iterdir()) if is_there else ():
                os.replace(file, folder / file.name)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def check_output(path: Path, kind: Literal["file", "folder"] = "file") -> None:
    """Raise :class:`PreferoError` where a file or a folder with that name cannot be written, as far as that
    is known beforehand."""
    if kind == "file" and path.is_dir():
        raise PreferoError(f"{path} is a folder: name a file to write to")
    if kind == "folder" and path.exists() and not path.is_dir():
        raise PreferoError(f"{path} is a file: name a folder to write to")
    whole = path.absolute()
    above = whole if kind == "folder" else whole.parent
    there = next(place for place in (above, *above.parents) if place.exists())
    if not there.is_dir():
        raise PreferoError(f"{path} cannot be written: {there} is a file, and not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PreferoError(f"{path} cannot be written: there is no permission to write to the folder {there}")


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(file) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(file: Path, content: Mapping[str, Any], *, indent: int | None = 2, sync: bool = False) -> None:
    """Write JSON whole or not at all."""
    with replacing(file, sync=sync) as draft:
        draft.write_text(json.dumps(finite(content), indent=indent, ensure_ascii=False) + "\n", "utf-8")


def write_lines(file: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, all of them or none."""
    with replacing(file) as draft, draft.open("w", encoding="utf-8") as lines:
        lines.writelines(map(line, records))


def append_line(file: Path, record: Mapping[str, Any]) -> None:
    """Add one JSON object to a file of JSON lines."""
    with writing(file), file.open("a", encoding="utf-8") as lines:
        lines.write(line(record))


def line(record: Mapping[str, Any]) -> str:
    """One JSON object as a line of a file."""
    return json.dumps(finite(record), ensure_ascii=False) + "\n"


def finite(value: Any) -> Any:
    """``value`` as JSON can hold it: NaN and infinities are None, and what JSON does not know is text."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int) or value is None else str(value)


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


def cache_folder(use: Literal["references", "worlds"]) -> Path:
    """Where what is computed once is kept: a folder for each use inside ``PREFERO_CACHE``, by default
    ``~/.cache/prefero``. ``references`` holds log-probabilities of models, ``worlds`` start models."""
    return Path(os.environ.get("PREFERO_CACHE") or Path.home() / ".cache" / "prefero") / use
