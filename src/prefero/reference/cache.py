"""What a model is, as one hash: two models with the same one give the same log-probabilities."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from prefero.data.packing import next_fit, unique_tokens
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.kind import Kind

_CHUNK = 1 << 24
"""Numbers that are brought to the CPU at a time."""

_INCIDENTAL = {"_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype", "architectures"}
"""Settings of a model's configuration that change no number."""


def model_fingerprint(model: nn.Module, *, adapters: bool = True, precision: str = "") -> str:
    """SHA-256 over the configuration and all weights of ``model``, dtype included.

    ``adapters=False`` leaves PEFT adapters out: the model as it is with its adapters switched off.
    ``precision`` names what else decides the arithmetic (autocast to bfloat16).
    """
    digest = hashlib.sha256(f"{type(_bare(model)).__name__} {precision}".encode())
    digest.update(json.dumps(_settings(model), sort_keys=True, default=str).encode())
    for name, tensor in _tensors(model, adapters):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1)
        for start in range(0, flat.numel(), _CHUNK):
            digest.update(_bytes(flat[start : start + _CHUNK]))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.cpu().contiguous().view(torch.uint8).numpy().data


def _tensors(model: nn.Module, adapters: bool) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the state, under the names they have without PEFT around them."""
    prefixes = tuple(_adapter_prefixes(model))
    for name, tensor in sorted(model.state_dict().items()):
        parts = name.split(".")
        if any(part.startswith(prefixes) for part in parts) if prefixes else False:
            if adapters:
                yield name, tensor
        else:
            bare = ".".join(part for part in parts if part != "base_layer")
            yield bare.removeprefix("base_model.model.") if _is_peft(model) else bare, tensor


def _is_peft(model: nn.Module) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _adapter_prefixes(model: nn.Module) -> set[str]:
    if not _is_peft(model):
        return set()
    return {prefix for prefix in (getattr(model.base_model, "prefix", ""),) if prefix}


def _bare(model: nn.Module) -> Any:
    return model.get_base_model() if _is_peft(model) else model  # type: ignore[operator]


def _settings(model: nn.Module) -> dict[str, Any]:
    config = getattr(_bare(model), "config", None)
    content = config.to_dict() if config is not None else {}
    return {
        key: value
        for key, value in content.items()
        if key not in _INCIDENTAL and not key.startswith(("_attn", "_experts"))
    }


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


_WRITE_SECONDS = 20.0
"""How much work a killed process may lose."""


def default_folder() -> Path:
    """``PREFERO_CACHE``, or ``references`` in the user's cache folder."""
    named = os.environ.get("PREFERO_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "prefero" / "references"


Progress = Callable[..., Iterable[list[TokenExample]]]
"""Wraps the rows that are to be scored, as :func:`tqdm.tqdm` does."""


@dataclass(frozen=True)
class CacheShare:
    """Which part of the filling falls to this process. ``wait`` returns once all processes have called it."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], object] = lambda: None


class CachedLogps:
    """Log-probabilities of one model, out of a :class:`~prefero.reference.cache.CellStore`."""

    def __init__(self, store: CellStore) -> None:
        self.store = store

    def __call__(self, examples: Sequence[Sequence[Cell]]) -> NDArray[np.float32]:
        """The log-probabilities of the cells of some examples, [example response token], 0 where there is
        none."""
        return stacked([[self.store[cell_key(cell)] for cell in cells] for cells in examples])

    def lacking(self, examples: Iterable[TokenExample]) -> list[TokenExample]:
        """The cells that are not in the store yet, as examples of cells that are best scored together."""
        seen: set[bytes] = set()
        groups = []
        for example in examples:
            cells = []
            for cell in example.all_cells:
                key = cell_key(cell)
                if key not in self.store and key not in seen:
                    seen.add(key)
                    cells.append(cell)
            if cells:
                groups.append(replace(example, cells=tuple(cells), columns={}, views={}))
        return groups

    def fill(
        self,
        kind: Kind,
        model: nn.Module,
        examples: Iterable[TokenExample],
        *,
        tokens_per_row: int,
        device: torch.device | str = "cpu",
        share: CacheShare | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Score what is lacking with ``model`` and write it; returns how many cells this process scored.

        Every process makes the same number of forward passes, so the model may be sharded over them. What is
        written stays if the process is killed, and is not scored again. ``progress`` wraps the rows.
        """
        share = share or CacheShare()
        lacking = self.lacking(examples)
        share.wait()  # before anybody writes: all have to see the same gaps
        rows = _rows(lacking, tokens_per_row)
        mine = [rows[i % len(rows)] for i in range(share.rank, _up_to(len(rows), share.world), share.world)]
        scored = 0
        if rows:
            was_training = model.training
            model.eval()
            for keys, values in _in_portions(
                _scored(kind, model, progress(mine) if progress else mine, device)
            ):
                self.store.write(keys, values)
                scored += len(keys)
            model.train(was_training)
        share.wait()
        self.store.refresh()
        if self.lacking(examples):
            raise PreferoError(
                f"{self.store.folder} lacks scores that another process has written: the cache has to be a "
                "folder that all machines share; name one in PREFERO_CACHE"
            )
        return scored


def _rows(examples: Sequence[TokenExample], tokens_per_row: int) -> list[list[TokenExample]]:
    """Groups of cells in rows of neighbours by length, the longest first."""
    sizes = [unique_tokens(example) for example in examples]
    order = sorted(range(len(examples)), key=lambda i: (-sizes[i], i))
    return [[examples[i] for i in row] for row in next_fit(order, sizes, tokens_per_row)]


@torch.no_grad()
def _scored(
    kind: Kind, model: nn.Module, rows: Iterable[list[TokenExample]], device: torch.device | str
) -> Iterator[tuple[list[bytes], list[Values]]]:
    for row in rows:
        inputs = kind.collate(row, [0] * len(row)).to(device)
        logps = kind.score(model, inputs)[""].logps.float().cpu().numpy()
        cells = [
            (cell, logps[example, response, : len(cell.response)])
            for example, content in enumerate(row)
            for response, cell in enumerate(content.cells)
        ]
        yield [cell_key(cell) for cell, _ in cells], [values for _, values in cells]


def _in_portions(
    scored: Iterable[tuple[list[bytes], list[Values]]],
) -> Iterator[tuple[list[bytes], list[Values]]]:
    """What was scored, gathered until writing it is worth while."""
    keys: list[bytes] = []
    values: list[Values] = []
    since = time.monotonic()
    for more_keys, more_values in scored:
        keys += more_keys
        values += more_values
        if time.monotonic() - since > _WRITE_SECONDS:
            yield keys, values
            keys, values, since = [], [], time.monotonic()
    if keys:
        yield keys, values


def _up_to(count: int, multiple: int) -> int:
    """The next multiple."""
    return -(-count // multiple) * multiple


def open_store(
    fingerprint: str, folder: Path | None = None, description: Mapping[str, str] | None = None
) -> CellStore:
    """The store of a model: ``folder`` itself, or one named after the fingerprint in the default place.

    Raises :class:`PreferoError` where the folder cannot be written, or holds another model's scores.
    """
    place = folder or default_folder() / fingerprint[:32]
    try:
        return CellStore(place, fingerprint, description)
    except OSError as error:
        raise PreferoError(
            f"the reference cache {place} cannot be used ({error.strerror or error}); name another folder in "
            "PREFERO_CACHE or reference.cache"
        ) from None
