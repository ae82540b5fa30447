from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.theory.optima import reward_optimum, reward_optimum_value
from prefero.theory.token_trees import ROOT, SoftOptimum, TokenTree, response_logps, soft_optimum

BETA = 0.4
PARENT = (ROOT, ROOT, ROOT, 0, 0, 1, 1, 5, 5)
"""Token 2 is a whole response; below token 5 there is a third level."""


def tree(inner_reward: float = 0.0) -> TokenTree:
    reference = [0.5, 0.3, 0.2, 0.6, 0.4, 0.7, 0.3, 0.9, 0.1]
    reward = [inner_reward, 0.0, 0.4, -0.2, 0.7, 0.0, 1.0, -0.5, 2.0]
    return TokenTree(PARENT, torch.tensor(reference).double(), torch.tensor(reward).double())


def rewards_of_responses(one: TokenTree) -> Tensor:
    return torch.stack([one.reward[path].sum() for path in one.responses()])


def solved(one: TokenTree) -> SoftOptimum:
    return soft_optimum(one, BETA)


@pytest.mark.parametrize("inner_reward", [0.0, 0.8])
def test_over_responses_it_is_the_reward_optimum(inner_reward: float) -> None:
    one = tree(inner_reward)
    found = solved(one)
    reference = response_logps(one, one.reference).exp()
    reward = rewards_of_responses(one)
    policy = response_logps(one, found.policy).exp()
    torch.testing.assert_close(policy, reward_optimum(reference, reward, BETA))
    torch.testing.assert_close(found.root_value, reward_optimum_value(reference, reward, BETA))


def test_token_rewards_are_log_ratios_and_add_up_to_the_reward_less_the_prompts_value() -> None:
    one = tree()
    found = solved(one)
    torch.testing.assert_close(found.token_reward, BETA * (found.policy / one.reference).log())
    sums = torch.stack([found.token_reward[path].sum() for path in one.responses()])
    torch.testing.assert_close(sums, rewards_of_responses(one) - found.root_value)


def test_a_potential_changes_values_but_not_the_policy() -> None:
    one = tree()
    potential = torch.tensor([0.3, -0.7, 0, 0, 0, 1.1, 0, 0, 0], dtype=torch.float64)
    above = torch.stack([potential.new_zeros(()) if p == ROOT else potential[p] for p in PARENT])
    shaped = TokenTree(PARENT, one.reference, one.reward + above - potential)
    plain, moved = solved(one), solved(shaped)
    torch.testing.assert_close(moved.policy, plain.policy)
    torch.testing.assert_close(moved.token_reward, plain.token_reward)
    assert not torch.allclose(moved.q, plain.q)


def test_the_mean_implicit_reward_of_the_references_own_responses_is_not_positive() -> None:
    """Why chosen rewards fall when the reference was fitted to the chosen responses."""
    one = tree()
    found, reference = solved(one), response_logps(one, one.reference)
    drift = reference.exp() @ (response_logps(one, found.policy) - reference)
    assert float(drift) < -0.1


def test_a_token_that_the_reference_excludes_is_never_chosen() -> None:
    one = tree()
    reference = one.reference.clone()
    reference[3], reference[4] = 1.0, 0.0
    found = solved(TokenTree(PARENT, reference, one.reward))
    assert found.policy[4] == 0
    assert found.token_reward.isfinite().all()


def test_a_child_before_its_parent_is_refused() -> None:
    one = torch.ones(2, dtype=torch.float64)
    with pytest.raises(PreferoError, match=r"node 0 .* parent 1"):
        TokenTree((1, ROOT), one, one)
