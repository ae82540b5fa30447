"""Parameters added up."""

from __future__ import annotations

import pytest
import torch

from prefero.errors import PreferoError
from prefero.models.arithmetic import combination

FIRST = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
SECOND = {"a": torch.tensor([5.0, 0.0]), "b": torch.tensor([[-1.0]])}


def test_all_the_weight_on_one_model_is_that_model() -> None:
    found = combination([FIRST, SECOND], [1.0, 0.0])
    assert all(torch.equal(found[name], FIRST[name]) for name in FIRST)


def test_parameters_are_combined_one_by_one() -> None:
    found = combination([FIRST, SECOND], [0.25, 0.75])
    assert found["a"].tolist() == [4.0, 0.5]
    assert found["b"].tolist() == [[0.0]]


def test_what_cannot_be_combined_is_named() -> None:
    with pytest.raises(PreferoError, match="2 models and 1 weights"):
        combination([FIRST, SECOND], [1.0])
    with pytest.raises(PreferoError, match="model 1 and the first do not share the parameter 'b'"):
        combination([FIRST, {"a": SECOND["a"]}], [0.5, 0.5])
    with pytest.raises(PreferoError, match=r"a has the shapes \(2,\) and \(1,\)"):
        combination([FIRST, {**SECOND, "a": torch.zeros(1)}], [0.5, 0.5])


def test_whole_numbers_stay_whole_and_are_no_parameters() -> None:
    counted = {"seen": torch.tensor(7), "places": torch.arange(3), "kept": torch.tensor([True, False])}
    found = combination([FIRST | counted, SECOND | counted], [0.5, -0.5])
    for name, value in counted.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
    with pytest.raises(PreferoError, match=r"seen is of torch\.int64 and not the same in all models"):
        combination([FIRST | counted, SECOND | counted | {"seen": torch.tensor(8)}], [0.5, 0.5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_half_precision_are_rounded_once(dtype: torch.dtype) -> None:
    numbers = torch.Generator().manual_seed(0)
    models = [{"a": torch.randn(500, generator=numbers).to(dtype)} for _ in range(8)]
    weights = [0.11 * place - 0.3 for place in range(8)]
    exact = sum(weight * model["a"].double() for weight, model in zip(weights, models, strict=True))
    found = combination(models, weights)["a"]
    assert found.dtype == dtype
    # a sum in float32 may fall on the other side of a tie
    assert (found != exact.to(dtype)).float().mean() < 0.01
