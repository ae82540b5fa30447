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
