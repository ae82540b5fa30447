"""Arithmetic of parameters: models as vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prefero.errors import PreferoError

Parameters = Mapping[str, Tensor]


def combination(models: Sequence[Parameters], weights: Sequence[float]) -> dict[str, Tensor]:
    """Σ_k λ_k θ_k, parameter by parameter.

    COFS-DPO combines the fast modules of several domains, with weights that add up to 1 and are chosen on a
    few pairs of every domain seen. Qi et al., 2024, arXiv 2406.05534. The factors of low-rank adapters cannot
    be combined one by one: the product of averages is not the average of products.

    Sums are made in float32 at least, and have the type of the first model's parameter. Whole numbers and
    truth values (positions, counters) are no parameters: all models have to have the same, and it stays.

    Raises:
        PreferoError: another number of weights than of models, models with other parameters or other shapes,
            or with other whole numbers.
    """
    if not models or len(models) != len(weights):
        raise PreferoError(f"there are {len(models)} models and {len(weights)} weights; give one for each.")
    names = models[0].keys()
    for place, model in enumerate(models):
        if model.keys() != names:
            other = sorted(names ^ model.keys())[0]
            raise PreferoError(f"model {place} and the first do not share the parameter {other!r}.")
    return {name: _combined(name, [model[name] for model in models], weights) for name in names}


def _combined(name: str, tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    first = tensors[0]
    if any(tensor.shape != first.shape for tensor in tensors):
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise PreferoError(f"{name} has the shapes {shapes}: the models are not of one architecture.")
    if not (first.is_floating_point() or first.is_complex()):
        if not all(torch.equal(tensor, first) for tensor in tensors):
            raise PreferoError(f"{name} is of {first.dtype} and not the same in all models: leave it out.")
        return first.clone()
    wide = torch.promote_types(first.dtype, torch.float32)
    return (
        torch.stack([w * tensor.to(wide) for w, tensor in zip(weights, tensors, strict=True)])
        .sum(0)
        .to(first.dtype)
    )


def preference_vector(aligned: Parameters, opposed: Parameters) -> dict[str, Tensor]:
    """θ₊ − θ₋: parameters after training on a preference, less those after training on its pairs with chosen
    and rejected exchanged, from the same start. Liang et al., 2025, arXiv 2504.20106.

    Merge low-rank adapters into their models first: factors cannot be subtracted one by one.
    """
    return combination([aligned, opposed], [1.0, -1.0])


def with_vectors(
    base: Parameters, vectors: Mapping[str, Parameters], strengths: Mapping[str, float]
) -> dict[str, Tensor]:
    """θ_base + Σ_p η_p φ_p: preferences added to a model without training, each as strong as one likes; a
    strength may be negative.

    Raises:
        PreferoError: a vector without a strength, or with other parameters than the model.
    """
    if missing := sorted(vectors.keys() - strengths.keys()):
        raise PreferoError(f"the preference vector {missing[0]!r} has no strength.")
    return combination([base, *vectors.values()], [1.0, *(strengths[name] for name in vectors)])
