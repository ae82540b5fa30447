"""A model's files against its configuration: weights that are missing, left over, of another size, or NaN.

transformers draws weights that are missing, and leaves out those that it has no place for; a training on them
succeeds and means nothing. So they are refused here, with their names, before anything is trained.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.utils import cached_file

from prefero.errors import PreferoError
from prefero.hub import hub_access

logger = logging.getLogger(__name__)

SHOWN = 3
"""Names of weights that a message gives; the others are counted."""


def refuse_other_weights(model: nn.Module, name: str, loaded: Mapping[str, Any]) -> None:
    """Raise :class:`PreferoError` where the weights of ``name`` are not those that its configuration asks
    for. ``loaded`` is transformers' own account of the loading, without weights that are tied and buffers
    that a model makes itself. Weights beside the model (a value head, a projection of another task) are left
    out, and a warning names them.
    """
    if sizes := {weight: (stored, asked) for weight, stored, asked in loaded["mismatched_keys"]}:
        first, (stored, asked) = min(sizes.items())
        where = ", and vocab_size" if any("embed" in weight or "head" in weight for weight in sizes) else ""
        raise PreferoError(
            f"the weights of {name!r} have another size than its configuration asks for: {named(sizes)}; "
            f"{first} is stored as {_shape(stored)}, and config.json makes it {_shape(asked)}. Compare the "
            f"sizes in config.json{where} with the checkpoint that the weights are from"
        )
    weights = {weight for weight, _ in model.named_parameters()}
    missing = loaded["missing_keys"] & weights
    if made := loaded["missing_keys"] - weights:
        logger.warning("buffers that the files of %r lack are computed again: %s", name, named(made))
    if missing:
        raise PreferoError(
            f"the files of {name!r} lack weights that its configuration asks for: {named(missing)}. "
            "transformers would draw them at random. Copy the whole checkpoint, or correct config.json"
        )
    left_over = loaded["unexpected_keys"]
    inside = {weight for weight in left_over if _inside(model, weight)}
    if inside and getattr(model, "hf_quantizer", None) is None:  # which stores more than the weights
        raise PreferoError(
            f"the files of {name!r} hold weights that its configuration has no place for: {named(inside)}. "
            "The model would run without them. Correct config.json (the number of layers, biases), or take "
            "them out of the files"
        )
    if beside := left_over - inside:
        logger.warning("weights in the files of %r that the model does not use: %s", name, named(beside))
    refuse_no_numbers(model, name)


def refuse_no_numbers(model: nn.Module, name: str) -> None:
    """Raise :class:`PreferoError` where a weight holds NaN or an infinite number; one pass, no copy."""
    wrong = [weight for weight, values in model.named_parameters() if not _finite(values)]
    if wrong:
        raise PreferoError(
            f"weights of {name!r} are not finite numbers (NaN or infinite): {named(wrong)}. Load another "
            "checkpoint; where only dtype float16 gives them, use bfloat16 or float32"
        )


def _finite(values: Tensor) -> bool:
    counts = values.is_floating_point() and values.dtype.itemsize > 1 and not values.is_meta
    return not counts or not values.numel() or all(map(torch.isfinite, values.detach().aminmax()))


def named(weights: Collection[str]) -> str:
    """The names of a few weights, in their order, and the number of all."""
    first = sorted(weights)[:SHOWN]
    more = len(weights) - len(first)
    return ", ".join(first) + (f" and {more} more ({len(weights)} in all)" if more else "")


def _shape(sizes: Collection[int]) -> str:
    return "×".join(map(str, sizes))


def _inside(model: nn.Module, weight: str) -> bool:
    """Whether a weight has a name inside a part of the model: one of its layers, or of a list of these."""
    path = weight.split(".")
    while path and not _has(model, ".".join(path)):
        path.pop()
    return ".".join(path) not in ("", getattr(model, "base_model_prefix", ""))


def _has(model: nn.Module, module: str) -> bool:
    try:
        model.get_submodule(module)
    except AttributeError:
        return False
    return True


def unreadable_file(name: str, revision: str | None) -> Path | None:
    """The first file of a model's weights or settings that cannot be read: it ends early, or is something
    else."""
    folder = Path(name)
    if not folder.is_dir():
        try:
            with hub_access(name):
                folder = Path(str(cached_file(name, "config.json", revision=revision))).parent
        except OSError:
            return None
    for file in sorted(folder.iterdir()):
        if file.suffix == ".safetensors":
            try:
                with safe_open(str(file), framework="pt"):
                    continue
            except (SafetensorError, OSError):
                return file
        if file.suffix == ".json":
            try:
                json.loads(file.read_text(encoding="utf-8"))
            except (ValueError, RecursionError):
                return file
        if file.suffix == ".bin" and "model" in file.name and not zipfile.is_zipfile(file):
            return file
    return None
