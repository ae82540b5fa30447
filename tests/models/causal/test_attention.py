"""Branches tile the row, their keys are their paths, and windows hold over depths."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from transformers.masking_utils import (
    causal_mask_function,
    chunked_causal_mask_function,
    sliding_window_causal_mask_function,
)

from prefero.data.packing import pack
from prefero.models.causal.attention import BranchPlan, ancestor_rule, branches_of
from tests.data.test_packing import batches
from tests.models.brute_force import examples


@given(batches())
def test_branches_are_root_to_leaf_paths(batch) -> None:
    forest = pack(batch)
    chains, branches = branches_of(forest)
    assert sum(chains) == sum(branch.length for branch in branches) == len(forest)
    starts = [sum(chains[:n]) for n in range(len(chains))]
    stop = 0
    for branch in branches:
        stop += branch.length
        leaf = stop - 1
        path = [node for c in branch.chains for node in range(starts[c], starts[c] + chains[c])]
        assert path == [node for node in range(stop) if leaf < forest.end[node]]
        assert len(path) == branch.path == int(forest.depth[leaf]) + 1
        assert path[-branch.length :] == list(range(stop - branch.length, stop))


RULES = {
    "causal": causal_mask_function,
    "window": sliding_window_causal_mask_function(5),
    "chunk": chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.int64)),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("groups", [1, 3])
def test_attention_equals_one_dense_mask(rule, groups: int) -> None:
    forest = pack(examples((9, (12, 5, 1)), (1, (3,)), (4, (1, 9))))
    generator = torch.Generator().manual_seed(0)
    shape = (1, 6, len(forest), 8)
    query = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    key, value = (
        torch.randn(1, 6 // groups, *shape[2:], generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    node = torch.arange(len(forest))
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.int64)
    mask = ancestor_rule(forest, rule)(zero, zero, node[None, None, :, None], node[None, None, None, :])
    dense = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
    found, _ = BranchPlan(forest, rule).attend(SimpleNamespace(), query, key, value, scaling=0.3)
    torch.testing.assert_close(found, dense.transpose(1, 2))
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), (query, key, value)),
        torch.autograd.grad((dense.transpose(1, 2) * weights).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_first_branches_of_trees_need_no_mask() -> None:
    plan = BranchPlan(pack(examples((9, (12, 5)), (4, (3,)))), causal_mask_function)
    assert [mask is None for mask in plan.masks(torch.float32)] == [True, False, True]


def test_what_the_kernel_cannot_take_is_refused() -> None:
    plan = BranchPlan(pack(examples((3, (2,)))), causal_mask_function)
    query = torch.zeros(1, 1, 5, 4)
    with pytest.raises(NotImplementedError, match="softcap"):
        plan.attend(SimpleNamespace(), query, query, query, softcap=30.0)
