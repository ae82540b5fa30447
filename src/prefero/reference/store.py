"""A folder of numbers that a model gave to cells, on disk: written shard by shard, never changed.

The key of an entry is the content of its cell, its token ids in its context, so an entry holds whatever the
data set, its order, the template or the truncation that led to these ids; what belongs to the model is in the
folder's fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from prefero.data.cells import Cell
from prefero.errors import PreferoError

FORMAT = 1
_KEY_BYTES = 16

Values = NDArray[np.float32]
"""One number for every token of a cell's response, 0 at holes."""


def cell_key(cell: Cell) -> bytes:
    """What stands for a cell: a hash of its context, its response and its holes."""
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    scored = np.ones(len(cell.response), bool) if cell.scored is None else cell.scored
    digest.update(len(cell.context).to_bytes(8, "little"))
    for array in (cell.context.astype(np.int64), cell.response.astype(np.int64), scored.astype(np.bool_)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


class CellStore:
    """Numbers of cells under ``folder``, made by the model that ``fingerprint`` names.

    Several processes may write to one folder at a time, and one that is killed loses what it had not yet
    passed to :meth:`write`. Raises :class:`PreferoError` for a folder of another model or format.
    """

    def __init__(self, folder: Path, fingerprint: str, description: Mapping[str, str] | None = None) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self._places: dict[bytes, tuple[str, int, int]] = {}
        self._values: dict[str, Values] = {}
        self._read: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        manifest = folder / "manifest.json"
        if not manifest.is_file():
            content = {"format": FORMAT, "fingerprint": fingerprint, **(description or {})}
            _write_atomically(manifest, lambda file: file.write_text(json.dumps(content, indent=2) + "\n"))
        self._check(manifest)
        self.refresh()

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """See what other processes have written since."""
        for shard in sorted(self.folder.glob("*.safetensors")):
            if shard.name not in self._read:
                self._index(shard)

    def __getitem__(self, key: bytes) -> Values:
        shard, start, stop = self._places[key]
        if shard not in self._values:
            self._values[shard] = self._checked_values(self.folder / shard)
        return self._values[shard][start:stop]

    def write(self, keys: Sequence[bytes], values: Sequence[Values]) -> None:
        """Add entries as one shard: afterwards it is there whole, whatever kills the process."""
        if not keys:
            return
        ids = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), _KEY_BYTES)
        stops = np.cumsum([len(value) for value in values], dtype=np.int64)
        flat = np.concatenate(values).astype(np.float32)
        metadata = {"fingerprint": self.fingerprint, "checksum": _checksum(ids, stops, flat)}
        shard = self.folder / f"{uuid.uuid4().hex}.safetensors"
        content: dict[str, NDArray] = {"keys": ids, "stops": stops, "values": flat}
        _write_atomically(shard, lambda file: save_file(content, file, metadata=metadata))
        self._index(shard)

    def _index(self, shard: Path) -> None:
        with self._open(shard) as file:
            keys, stops = file.get_tensor("keys"), file.get_tensor("stops")
        starts = np.concatenate(([0], stops[:-1]))
        for key, start, stop in zip(keys, starts.tolist(), stops.tolist(), strict=True):
            self._places.setdefault(key.tobytes(), (shard.name, start, stop))
        self._read.add(shard.name)

    def _checked_values(self, shard: Path) -> Values:
        with self._open(shard) as file:
            content = [file.get_tensor(name) for name in ("keys", "stops", "values")]
            if file.metadata().get("checksum") != _checksum(*content):
                raise _damaged(shard)
        return content[-1]

    def _open(self, shard: Path) -> Any:
        try:
            file = safe_open(str(shard), framework="numpy")
        except (SafetensorError, OSError):
            raise _damaged(shard) from None
        if (file.metadata() or {}).get("fingerprint") != self.fingerprint:
            raise PreferoError(
                f"{shard} holds the scores of another model than the folder it lies in says; delete it"
            )
        return file

    def _check(self, manifest: Path) -> None:
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise PreferoError(f"{manifest} cannot be read; delete the folder, it is filled again") from None
        if content.get("format") != FORMAT:
            raise PreferoError(
                f"{self.folder} is a reference cache of format {content.get('format')}, this version of "
                f"prefero reads format {FORMAT}; delete the folder, it is filled again"
            )
        if content.get("fingerprint") != self.fingerprint:
            raise PreferoError(
                f"{self.folder} holds the scores of another model ({content.get('model', 'unnamed')}, "
                f"fingerprint {str(content.get('fingerprint'))[:12]}) than the reference of this run "
                f"({self.fingerprint[:12]}): its weights, precision or quantisation differ; name another "
                "folder or leave the cache to prefero"
            )


def stacked(values: Iterable[Sequence[Values]]) -> NDArray[np.float32]:
    """Numbers of the cells of several examples as one array [example response token], filled up with 0."""
    rows = list(values)
    responses = max(len(row) for row in rows)
    tokens = max(len(value) for row in rows for value in row)
    result = np.zeros((len(rows), responses, tokens), np.float32)
    for example, row in enumerate(rows):
        for response, value in enumerate(row):
            result[example, response, : len(value)] = value
    return result


def _checksum(*arrays: NDArray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _damaged(shard: Path) -> PreferoError:
    return PreferoError(f"{shard} is damaged; delete it, what it held is scored again")


def _write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        write(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
