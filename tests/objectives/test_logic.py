"""Losses compiled from preference structures are the published ones."""

from __future__ import annotations

import pytest
import torch

from prefero.errors import PreferoError
from prefero.logic import PUBLISHED
from prefero.objectives import PreferenceBatch, TokenLogps, from_config, method, methods
from tests.objectives.batches import batch_for, build, slope_of


def compiled(name: str, **arguments: object):
    reading = PUBLISHED[name]
    return build("logic", **{**reading.structure.formulas, "tokens": reading.tokens, **arguments})


def one_token_pairs(chosen: float, rejected: float, dtype: torch.dtype = torch.float64) -> PreferenceBatch:
    """Log-probabilities of one-token responses; the reference gives −1 to both."""
    logps = torch.tensor([[[chosen], [rejected]]], dtype=dtype, requires_grad=True)
    mask = torch.ones(1, 2, 1, dtype=torch.bool)
    reference = torch.full_like(logps, -1.0).detach()
    return PreferenceBatch({"policy": TokenLogps(logps, mask), "reference": TokenLogps(reference, mask)})


def assert_same(first, second, batch: PreferenceBatch) -> None:
    one, two = first.loss(batch), second.loss(batch)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope_of(one, batch), slope_of(two, batch), rtol=1e-9, atol=1e-14)


def test_dpo_is_compiled() -> None:
    first, second = compiled("dpo", beta=0.3), build("dpo", beta=0.3)
    assert_same(first, second, batch_for(second, spread=4.0))


def test_ipo_is_the_square_of_dpos_structure() -> None:
    second = build("ipo", tau=0.2, tokens="sum")
    assert_same(compiled("dpo", link="squared", gamma=2.5), second, batch_for(second))


@pytest.mark.parametrize("link", ["logistic", "hinge"])
def test_simpo_is_compiled(link: str) -> None:
    second = build("simpo", beta=2.5, gamma=0.8, link=link)
    assert_same(compiled("simpo", beta=2.5, gamma=0.8, link=link), second, batch_for(second))


def test_a_compiled_loss_is_a_product_where_its_formula_is_one() -> None:
    """Listing all assignments would bring in 1 − p of probabilities near 0 and 1, and lose digits."""
    batch = one_token_pairs(-1e-9, -900.0)
    loss = compiled("dpo", beta=1e-3).loss(batch)
    expected = build("dpo", beta=1e-3).loss(batch)
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)


def test_orpos_term_is_the_log_odds_ratio() -> None:
    batch = random_batch_of_pairs()
    mean = torch.where(batch.mask, batch.models["policy"].logps, 0).sum(-1) / batch.lengths
    odds = mean - torch.log1p(-mean.exp())
    expected = -torch.nn.functional.logsigmoid(odds[:, 0] - odds[:, 1]).mean()
    torch.testing.assert_close(compiled("orpo").loss(batch), expected)


@pytest.mark.parametrize("name", ["orpo", "ccpo"])
def test_a_structure_against_the_reference_has_the_difference_of_the_ratios(name: str) -> None:
    lifted = PUBLISHED[name].structure.against_reference()
    batch = batch_for(build("dpo"))
    swapped = PreferenceBatch({"policy": batch.models["reference"]}, roles=batch.roles)
    plain = compiled(name)
    expected = plain.comparisons(batch).margins - plain.comparisons(swapped).margins
    found = build("logic", **lifted.formulas).comparisons(batch).margins
    torch.testing.assert_close(found, expected)


def test_cross_entropy_is_compiled() -> None:
    batch = random_batch_of_pairs()
    assert_same(compiled("cross_entropy"), build("nll"), batch)


def random_batch_of_pairs() -> PreferenceBatch:
    return batch_for(build("simpo"))


@pytest.mark.parametrize("name", ["cpo", "orpo"])
def test_exchanging_the_responses_turns_the_ratio_of_symmetric_structures(name: str) -> None:
    objective = compiled(name)
    there, back = (
        objective.comparisons(one_token_pairs(*order)).margins for order in ((-0.4, -2.0), (-2.0, -0.4))
    )
    torch.testing.assert_close(there, -back)


@pytest.mark.parametrize("name", ["cross_entropy", "unlikelihood", "ccpo"])
def test_and_not_that_of_others(name: str) -> None:
    objective = compiled(name)
    there, back = (
        objective.comparisons(one_token_pairs(*order)).margins for order in ((-0.4, -2.0), (-2.0, -0.4))
    )
    assert not torch.allclose(there, -back)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logps", [(0.0, 0.0), (0.0, -1e3), (-1e3, 0.0), (-1e-9, -1e-9), (-1e3, -1e3)])
@pytest.mark.parametrize("name", PUBLISHED)
def test_certain_and_impossible_responses_stay_finite(
    name: str, logps: tuple[float, float], dtype: torch.dtype
) -> None:
    batch = one_token_pairs(*logps, dtype=dtype)
    loss = compiled(name).to(dtype).loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()


def test_a_response_that_is_absent_takes_no_part() -> None:
    whole = one_token_pairs(-0.4, -2.0)
    logps = torch.cat([whole.models["policy"].logps.detach()] * 2).requires_grad_()
    mask = torch.tensor([[[True], [True]], [[True], [False]]])
    batch = PreferenceBatch({"policy": TokenLogps(logps, mask)})
    loss = compiled("orpo").loss(batch)
    torch.testing.assert_close(loss, compiled("orpo").loss(whole))
    slope = slope_of(loss, batch)
    assert slope.isfinite().all()
    assert (slope[1] == 0).all()


def test_other_models_and_responses_can_be_spoken_of() -> None:
    objective = build("logic", formula="previous(gold) & M(y_l) -> M(gold)", condition="true")
    batch = batch_for(objective)
    assert set(batch.models) == {"policy", "previous"}
    assert set(batch.roles) == {"gold", "rejected"}
    assert objective.loss(batch).isfinite()


def test_a_configuration_carries_formulas() -> None:
    objective = from_config(
        {
            "method": "logic",
            "formula": "M(y_l) → M(y_w)",
            "condition": "M(y_w) ⊕ M(y_l)",
            "plus": {"nll": 1.0},
        }
    )
    assert objective.arguments["condition"] == "M(y_w) ⊕ M(y_l)"
    with pytest.raises(PreferoError, match="no formula"):
        from_config({"method": "logic", "formula": "y_w better"})
    with pytest.raises(PreferoError, match="formula of logic is text"):
        method("logic", formula=3)


def test_the_methods_that_readings_name_exist() -> None:
    named = {key for reading in PUBLISHED.values() for key in reading.methods}
    assert named <= set(methods())


def test_orpo_is_its_structure_and_a_likelihood() -> None:
    both = 0.3 * compiled("orpo") + build("nll", tokens="batch")
    assert_same(both, build("orpo", lam=0.3), random_batch_of_pairs())


def test_gradients_of_the_default_raise_the_chosen_and_lower_the_rejected() -> None:
    objective = build("logic")
    batch = batch_for(objective)
    slope = slope_of(objective.loss(batch), batch)
    assert (slope[:, 0][batch.mask[:, 0]] < 0).all()
    assert (slope[:, 1][batch.mask[:, 1]] > 0).all()
