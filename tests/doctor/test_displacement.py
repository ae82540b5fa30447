from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from prefero.data.trie import Cell
from prefero.doctor.policy import Ches, ches, ches_of, displaced_towards, least_displacing
from prefero.errors import PreferoError
from tests.models.causal.families import VOCABULARY, build


def states(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(chosen: Tensor, rejected: Tensor) -> Ches:
    """Of responses that fill their rows."""
    everywhere = [torch.ones(side.shape[:2], dtype=torch.bool) for side in (chosen, rejected)]
    return ches(chosen, rejected, everywhere[0], everywhere[1])


def test_by_hand_and_not_symmetric() -> None:
    first, second = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    assert plain(first, second).score.tolist() == [-1]
    assert plain(second, first).score.tolist() == [-4]


def test_equal_responses_score_zero() -> None:
    one = states(3, 4, 5)
    found = plain(one, one)
    assert found.score.abs().max() < 1e-12
    assert found.normalised.abs().max() < 1e-12


def test_repeating_every_state_multiplies_the_score_by_four_and_not_the_normalised_one() -> None:
    chosen, rejected = states(3, 4, 5), states(3, 2, 5, seed=1)
    once = plain(chosen, rejected)
    twice = plain(chosen.repeat(1, 2, 1), rejected.repeat(1, 2, 1))
    torch.testing.assert_close(twice.score, 4 * once.score)
    torch.testing.assert_close(twice.normalised, once.normalised)


def test_a_rotation_of_all_states_changes_nothing() -> None:
    rotation, _ = torch.linalg.qr(states(5, 5, seed=2))
    chosen, rejected = states(3, 4, 5), states(3, 2, 5, seed=1)
    turned = plain(chosen @ rotation, rejected @ rotation)
    torch.testing.assert_close(turned.normalised, plain(chosen, rejected).normalised)


def test_padding_is_not_read() -> None:
    chosen, rejected = states(1, 4, 5), states(1, 2, 5, seed=1)
    filler = torch.full((1, 3, 5), torch.nan, dtype=torch.float64)
    padded = ches(
        torch.cat([chosen, filler], 1),
        torch.cat([rejected, filler], 1),
        torch.arange(7)[None] < 4,
        torch.arange(5)[None] < 2,
    )
    torch.testing.assert_close(padded.score, plain(chosen, rejected).score)
    torch.testing.assert_close(padded.normalised, plain(chosen, rejected).normalised)


def test_the_lowest_are_kept_in_the_order_of_the_data() -> None:
    scores = torch.tensor([0.3, -2.0, 0.1, -1.0])
    assert least_displacing(Ches(scores, scores), 2) == [1, 3]
    for keep in (0, 5):
        with pytest.raises(PreferoError, match="between 1 and the 4 pairs"):
            least_displacing(Ches(scores, scores), keep)


def pairs(count: int) -> list[tuple[Cell, Cell]]:
    """Each with one prompt and two responses of random length."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        prompt, *responses = (rng.integers(3, VOCABULARY, rng.integers(1, 7)) for _ in range(3))
        found.append((Cell(prompt, responses[0]), Cell(prompt, responses[1])))
    return found


def head_inputs(model, cell: Cell) -> Tensor:
    """What entered the language-model head at the positions that predict the response, by a hook."""
    seen: list[Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ids = torch.from_numpy(np.concatenate([cell.context, cell.response]))[None]
    with torch.no_grad():
        model(ids)
    hook.remove()
    return seen[0][:, len(cell.context) - 1 : -1]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("tokens_per_row", [1, 4096])
def test_on_a_model_it_is_made_of_what_enters_the_head(family: str, tokens_per_row: int) -> None:
    model = build(family).train()
    found = ches_of(model, pairs(5), tokens_per_row=tokens_per_row)
    assert model.training
    model.eval()
    one_by_one = [plain(*(head_inputs(model, cell) for cell in pair)) for pair in pairs(5)]
    torch.testing.assert_close(
        found.score, torch.cat([one.score for one in one_by_one]).double(), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        found.normalised, torch.cat([one.normalised for one in one_by_one]).double(), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(PreferoError, match="at least one pair"):
        ches_of(model, [])


def test_tokens_that_do_not_count_are_left_out() -> None:
    model, (chosen, rejected) = build("llama"), pairs(3)[2]
    assert len(chosen.response) > 1
    scored = np.arange(len(chosen.response)) > 0
    found = ches_of(model, [(Cell(chosen.context, chosen.response, scored), rejected)])
    expected = plain(head_inputs(model, chosen)[:, 1:], head_inputs(model, rejected))
    torch.testing.assert_close(found.normalised, expected.normalised.double(), rtol=1e-4, atol=1e-5)


def trained_share(rejected_embedding: list[float], steps: int) -> tuple[Tensor, Tensor]:
    """Probabilities before and after DPO on one pair of one-token responses, the hidden state free and the
    unembedding fixed (chosen, rejected, a third and another token)."""
    head = torch.tensor([[3.0, 0.3], rejected_embedding, [0.0, 4.0], [-1.0, -1.0]], dtype=torch.float64)
    hidden = torch.tensor([0.5, 0.0], dtype=torch.float64, requires_grad=True)
    start = (head @ hidden).log_softmax(0).detach()
    for _ in range(steps):
        ratio = (head @ hidden).log_softmax(0) - start
        loss = -torch.nn.functional.logsigmoid(0.1 * (ratio[0] - ratio[1]))
        (slope,) = torch.autograd.grad(loss, hidden)
        with torch.no_grad():
            hidden -= 0.05 * slope
    return start.exp(), (head @ hidden).softmax(0).detach()


def test_similar_tokens_displace_the_chosen_one_towards_what_the_difference_points_at() -> None:
    before, after = trained_share([3.0, -0.3], 1000)
    assert after[0] < 0.1 * before[0]
    assert after[2] > 0.9
    head = torch.tensor([[3.0, 0.3], [3.0, -0.3], [0.0, 4.0], [-1.0, -1.0]])
    assert displaced_towards(head, 0, 1).argmax() == 2
    before, after = trained_share([-1.5, -3.0], 1000)
    assert after[0] > before[0], "distinct tokens do not displace"
