"""Log-probabilities of models that do not change, on disk: computed once for each model and cell.

A model is named by a fingerprint of its configuration and weights, a cell (a response in its context) by a
hash of its tokens and of the version by which they were made.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from prefero.data.packing import next_fit
from prefero.data.tokenize import TOKENIZING
from prefero.data.trie import Cell, TokenExample, unique_tokens
from prefero.errors import PreferoError
from prefero.models.kind import Kind
from prefero.models.loading import PEFT_PREFIX, evaluating, unwrapped
from prefero.storage import cache_folder, replacing, write_json

FORMAT = 1

Values = NDArray[np.float32]
"""One number for every token of a cell's response, 0 at holes."""

Progress = Callable[..., Iterable[list[TokenExample]]]
"""Wraps the micro-batches that are to be scored, as :func:`tqdm.tqdm` does."""

_CHUNK = 1 << 24
"""Numbers that are brought to the CPU at a time."""

_INCIDENTAL = {"_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype", "architectures"}
"""Settings of a model's configuration that change no number."""

_KEY_BYTES = 16

_WRITE_SECONDS = 20.0
"""Seconds of work that a killed process may lose."""


# Names of models and cells


def model_fingerprint(model: nn.Module, *, adapters: bool = True, precision: str = "") -> str:
    """SHA-256 over the configuration and all weights of ``model``, dtype included: two models with the same
    fingerprint give the same log-probabilities.

    ``adapters=False`` leaves PEFT adapters out: the model as it is with its adapters switched off.
    ``precision`` names what else decides the arithmetic (autocast to bfloat16, texts that are scored apart).
    """
    inner: Any = unwrapped(model)
    config: Any = getattr(inner, "config", None)
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    settings = {
        name: value
        for name, value in config.items()
        if name not in _INCIDENTAL and not name.startswith(("_attn", "_experts"))
    }
    digest = hashlib.sha256(f"{type(inner).__name__} {precision}".encode())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in _named_tensors(model, adapters):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for numbers in tensor.detach().reshape(-1).split(_CHUNK):
            digest.update(numbers.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _named_tensors(model: nn.Module, adapters: bool) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the state, under the names that they have without PEFT around them."""
    tuner: Any = model.base_model if isinstance(model, PeftModel) else None
    adapter_prefix = getattr(tuner, "prefix", "")
    for name, tensor in sorted(model.state_dict().items()):
        components = name.split(".")
        if adapter_prefix and any(component.startswith(adapter_prefix) for component in components):
            if adapters:
                yield name, tensor
        else:
            bare = ".".join(component for component in components if component != "base_layer")
            yield bare if tuner is None else bare.removeprefix(PEFT_PREFIX), tensor


def cell_key(cell: Cell) -> bytes:
    """A hash of a cell's context, its response and its holes, and of the version of the tokenising."""
    digest = hashlib.blake2b(f"tokenizing {TOKENIZING}".encode(), digest_size=_KEY_BYTES)
    scored = np.ones(len(cell.response), bool) if cell.scored is None else cell.scored
    digest.update(len(cell.context).to_bytes(8, "little"))
    for array in (cell.context.astype(np.int64), cell.response.astype(np.int64), scored.astype(np.bool_)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


# On disk


class CellStore:
    """Numbers of cells under ``folder``, those of the model that ``fingerprint`` names.

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
            write_json(manifest, content, sync=True)
        self._refuse_other(manifest)
        self.refresh()

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: bytes) -> Values:
        name, start, stop = self._places[key]
        if name not in self._values:
            shard = self.folder / name
            with self._open(shard) as file:
                keys, stops, values = (file.get_tensor(tensor) for tensor in ("keys", "stops", "values"))
                if file.metadata().get("checksum") != _checksum(keys, stops, values):
                    raise _damaged(shard)
            self._values[name] = values
        return self._values[name][start:stop]

    def write(self, entries: Mapping[bytes, Values]) -> None:
        """Add entries as one shard: afterwards it is there whole, whatever kills the process."""
        if not entries:
            return
        keys = np.frombuffer(b"".join(entries), np.uint8).reshape(len(entries), _KEY_BYTES)
        stops = np.cumsum([len(values) for values in entries.values()], dtype=np.int64)
        flat = np.concatenate(list(entries.values())).astype(np.float32)
        metadata = {"fingerprint": self.fingerprint, "checksum": _checksum(keys, stops, flat)}
        content: dict[str, NDArray] = {"keys": keys, "stops": stops, "values": flat}
        with replacing(self.folder / f"{uuid.uuid4().hex}.safetensors", sync=True) as draft:
            save_file(content, draft, metadata=metadata)
        self.refresh()

    def refresh(self) -> None:
        """Look for shards that were written since, by this process or another."""
        for shard in sorted(self.folder.glob("*.safetensors")):
            if shard.name in self._read:
                continue
            with self._open(shard) as file:
                keys, stops = file.get_tensor("keys"), file.get_tensor("stops")
            starts = np.concatenate(([0], stops[:-1]))
            for key, start, stop in zip(keys, starts.tolist(), stops.tolist(), strict=True):
                self._places.setdefault(key.tobytes(), (shard.name, start, stop))
            self._read.add(shard.name)

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

    def _refuse_other(self, manifest: Path) -> None:
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


def _checksum(*arrays: NDArray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _damaged(shard: Path) -> PreferoError:
    return PreferoError(f"{shard} is damaged; delete it, what it held is scored again")


def open_store(
    fingerprint: str, folder: Path | None = None, description: Mapping[str, str] | None = None
) -> CellStore:
    """The store of a model: ``folder`` itself, or one named after the fingerprint in the default place.

    Raises :class:`PreferoError` where the folder cannot be written, or holds another model's scores.
    """
    place = folder or cache_folder("references") / fingerprint[:32]
    try:
        return CellStore(place, fingerprint, description)
    except OSError as error:
        raise PreferoError(
            f"the reference cache {place} cannot be used ({error.strerror or error}); name another folder in "
            "PREFERO_CACHE or reference.cache"
        ) from None


# Looking up and filling


@dataclass(frozen=True)
class CacheShare:
    """The share of the filling that falls to this process; ``wait`` returns once all have called it."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class CachedLogps:
    """Log-probabilities of one model, out of a :class:`CellStore`."""

    store: CellStore

    def __call__(self, examples: Sequence[Sequence[Cell]]) -> NDArray[np.float32]:
        """The log-probabilities of the cells of some examples, [example response token], else 0."""
        stored = [[self.store[cell_key(cell)] for cell in cells] for cells in examples]
        responses = max(len(cells) for cells in stored)
        tokens = max(len(values) for cells in stored for values in cells)
        logps = np.zeros((len(stored), responses, tokens), np.float32)
        for example, of_cells in enumerate(stored):
            for response, values in enumerate(of_cells):
                logps[example, response, : len(values)] = values
        return logps

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
        written is not scored again if the process is killed. ``progress`` wraps the micro-batches.
        """
        share = share or CacheShare()
        lacking = self.lacking(examples)
        share.wait()  # before anybody writes: all have to see the same gaps
        sizes = [unique_tokens(example.all_cells) for example in lacking]
        longest_first = sorted(range(len(lacking)), key=lambda i: (-sizes[i], i))
        members = next_fit(longest_first, sizes, tokens_per_row)
        passes = -(-len(members) // share.world)
        places = [(share.rank + number * share.world) % len(members) for number in range(passes)]
        mine = [[lacking[i] for i in members[place]] for place in places]
        scored, pending, written_at = 0, dict[bytes, Values](), time.monotonic()
        with evaluating(model):
            for examples_at_once in progress(mine) if progress else mine:
                pending |= _scored(kind, model, examples_at_once, device)
                if time.monotonic() - written_at > _WRITE_SECONDS:
                    self.store.write(pending)
                    scored, pending, written_at = scored + len(pending), {}, time.monotonic()
        self.store.write(pending)
        share.wait()
        self.store.refresh()
        if self.lacking(examples):
            raise PreferoError(
                f"{self.store.folder} lacks scores that another process has written: the cache has to be a "
                "folder that all machines share; name one in PREFERO_CACHE"
            )
        return scored + len(pending)


@torch.no_grad()
def _scored(
    kind: Kind, model: nn.Module, examples: Sequence[TokenExample], device: torch.device | str
) -> dict[bytes, Values]:
    """The numbers of the cells of a micro-batch of examples, by their keys."""
    inputs = kind.collate(examples, [0] * len(examples)).to(device)
    logps = kind.score(model, inputs)[""].logps.float().cpu().numpy()
    return {
        cell_key(cell): logps[number, response, : len(cell.response)]
        for number, example in enumerate(examples)
        for response, cell in enumerate(example.cells)
    }
