"""The normaliser of the logits as a signal: probabilities alone cannot show it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from prefero.data.packing import pack
from prefero.models import head
from prefero.models.causal.scoring import Language
from prefero.objectives.signals import LOG_Z
from tests.models.brute_force import PAIRS, examples, gradients, padded_stack, relative_error, weights_like
from tests.models.test_signals import small_gpt2


def log_z(model, cell) -> torch.Tensor:
    ids = torch.from_numpy(np.concatenate((cell.context, cell.response)))[None]
    start = len(cell.context) - 1
    return model(input_ids=ids, use_cache=False).logits[0][start : start + len(cell.response)].logsumexp(-1)


@pytest.mark.parametrize("chunked", [False, True])
def test_it_is_the_log_sum_exp_of_the_logits_in_value_and_gradient(chunked: bool, monkeypatch) -> None:
    if chunked:
        monkeypatch.setattr(head, "FEWEST_ROWS", 7)
        monkeypatch.setattr(head, "CHUNK_BYTES", 1)
        monkeypatch.setattr(head, "KEPT_BYTES", 0)
    policy, batch = small_gpt2(), examples(*PAIRS)
    alone = copy.deepcopy(policy)
    found = Language.score(policy, pack(batch), frozenset({LOG_Z}))[""].signals[LOG_Z]
    expected = padded_stack([[log_z(alone, cell) for cell in example.cells] for example in batch])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)
    weights = weights_like(expected)
    slope = gradients(policy, (found * weights).sum())
    assert relative_error(slope, gradients(alone, (expected * weights).sum())) < 1e-8
