"""Images in a forest: every distinct image goes through the vision tower once, its features to its places.

The model's own body is given the features in the order of the input's image tokens, and positions in the
tree: depths, or, for families that place images on a grid (M-RoPE), those of the model's own rule.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from prefero.data.images import Arrays
from prefero.data.packing import Forest, ImageBatch
from prefero.errors import PreferoError
from prefero.models.causal.attention import PathRows

ALIGNED = ("deepstack_features",)
"""Outputs of encoders that also have a row for every image token, besides the features themselves."""


def image_inputs(
    model: PreTrainedModel, body: Any, forest: Forest, paths: PathRows | None = None
) -> dict[str, Any]:
    """The body's arguments for a forest with images, or for its ``paths`` as separate rows; they replace and
    extend those for text."""
    assert forest.images is not None
    if "mm_encoder_outputs" not in inspect.signature(body.forward).parameters:
        raise PreferoError(
            f"{type(body).__name__} takes no images that were encoded before in this version of "
            f"transformers ({transformers.__version__}): update it, or name a model of another family"
        )
    ids = forest.ids[None] if paths is None else paths.ids
    inputs = {
        "input_ids": shown_ids(model, ids),
        "mm_encoder_outputs": _features(model, forest.images, ids),
        **({} if paths is None else token_types(model, ids)),
    }
    if hasattr(body, "get_rope_index"):
        rows = paths or PathRows.of(forest)
        positions = grid_positions(model, body, forest.images, rows.ids)
        inputs["position_ids"] = positions if paths else positions[:, rows.row, forest.depth][:, None]
    return inputs


def own_inputs(
    model: PreTrainedModel, images: ImageBatch, ids: Int[Tensor, "row position"]
) -> dict[str, Any]:
    """The arguments of the model's own forward for rows with images."""
    shown = [images.arrays[number] for number in images.shown(ids)]
    return {"input_ids": shown_ids(model, ids), **_joined(model, shown), **token_types(model, ids)}


def shown_ids(model: PreTrainedModel, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The ids with the model's placeholder where an image is."""
    return ids.masked_fill(ids < 0, placeholder(model.config))


def placeholder(config: Any) -> int:
    """The token for a part of an image. Raises :class:`PreferoError` for a model that sees no images."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(token := getattr(config, name, None), int):
            return token
    raise PreferoError(
        f"a model of type {config.model_type!r} has no token for images in its configuration: name a "
        "vision-language model, or data without images"
    )


def token_types(model: PreTrainedModel, ids: Int[Tensor, "row position"]) -> dict[str, Tensor]:
    """1 at image tokens, for families whose forward asks for it."""
    accepted = inspect.signature(type(model).forward).parameters
    names = [name for name in ("mm_token_type_ids", "token_type_ids") if name in accepted]
    return {name: (ids < 0).long() for name in names}


def grid_positions(
    model: PreTrainedModel, body: Any, images: ImageBatch, ids: Int[Tensor, "row position"]
) -> Int[Tensor, "axis row position"]:
    """Positions of rows by the model's own rule for images on a grid."""
    wanted = inspect.signature(body.get_rope_index).parameters
    shown = _joined(model, [images.arrays[number] for number in images.shown(ids)])
    types = {"mm_token_type_ids": (ids < 0).long()}
    given = {name: value for name, value in {**shown, **types}.items() if name in wanted}
    positions, _ = body.get_rope_index(input_ids=shown_ids(model, ids), **given)
    return positions


def _features(
    model: PreTrainedModel, images: ImageBatch, ids: Int[Tensor, "*shape"]
) -> dict[str, ModelOutput]:
    """The encoder's output for the image tokens among ``ids``, in their order."""
    seeing: Any = model
    groups: dict[Any, list[int]] = {}
    for number, arrays in enumerate(images.arrays):
        shapes = tuple((name, tuple(array.shape)) for name, array in sorted(arrays.items()))
        groups.setdefault(shapes, []).append(number)
    features: dict[str, dict[int, Tensor]] = {}
    for members in groups.values():
        arrays = _joined(model, [images.arrays[number] for number in members])
        output: Any = seeing.get_image_features(**arrays, return_dict=True)
        for name, rows in _of_tokens(output).items():
            share, rest = divmod(len(rows), len(members))
            if rest or any(int(images.counts[number]) != share for number in members):
                raise PreferoError(
                    f"{type(model).__name__} makes {len(rows)} features of {len(members)} images, and "
                    f"prompts have {int(images.counts[members[0]])} tokens for one: the processor belongs to "
                    "another model"
                )
            features.setdefault(name, {}).update(zip(members, rows.split(share), strict=True))
    places = images.places(ids)
    ordered = {
        name: torch.cat([of_image[number] for number in range(len(images.arrays))])[places]
        for name, of_image in features.items()
    }
    return {"image": _like(output, ordered)}


def _of_tokens(output: Any) -> dict[str, Tensor]:
    """An encoder's outputs with one row per image token."""
    rows = {"pooler_output": _flat(output.pooler_output)}
    for name in ALIGNED:
        for number, layer in enumerate(getattr(output, name, None) or ()):
            rows[f"{name}/{number}"] = _flat(layer)
    return rows


def _flat(features: Tensor | Sequence[Tensor]) -> Tensor:
    if isinstance(features, Tensor):
        return features.flatten(0, -2)
    return torch.cat([part.flatten(0, -2) for part in features])


def _like(output: Any, ordered: Mapping[str, Tensor]) -> ModelOutput:
    """An encoder's output with these rows, in the form in which the model reads it."""
    pooled = output.pooler_output
    rows = ordered["pooler_output"]
    result = type(output)(pooler_output=rows[None] if isinstance(pooled, Tensor) else (rows,))
    for name in ALIGNED:
        layers = [
            ordered[f"{name}/{number}"] if isinstance(layer, Tensor) else (ordered[f"{name}/{number}"],)
            for number, layer in enumerate(getattr(output, name, None) or ())
        ]
        if layers:
            setattr(result, name, layers)
    return result


def _joined(model: PreTrainedModel, arrays: Sequence[Arrays]) -> dict[str, Tensor]:
    """The arrays of several images as one call takes them, floats in the model's type."""
    if not arrays:
        return {}
    joined = {name: torch.cat(_even([part[name] for part in arrays])) for name in arrays[0]}
    return {
        name: array.to(model.dtype) if array.is_floating_point() else array for name, array in joined.items()
    }


def _even(arrays: Sequence[Tensor]) -> list[Tensor]:
    """The arrays padded with zeros, which models take for no image, to one shape behind the first axis."""
    largest = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    return [
        array
        if list(array.shape[1:]) == largest
        else array.new_zeros(len(array), *largest).index_put(
            torch.meshgrid(*(torch.arange(n, device=array.device) for n in array.shape), indexing="ij"), array
        )
        for array in arrays
    ]
