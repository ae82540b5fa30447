"""What the dry run finds for every method, pinned; and what it refuses."""

from __future__ import annotations

import pytest

from prefero.errors import PreferoError
from prefero.objectives import (
    Column,
    Compare,
    Logp,
    Needs,
    Pair,
    dry_run,
    from_config,
    log_ratio,
    negative_log_likelihood,
    penalty,
)
from prefero.objectives.signals import LOG_MAX_P, LOG_SUM_P_SQUARED
from tests.objectives.batches import build
from tests.objectives.pinned_needs import NEEDS

PAIR = ("chosen", "rejected")
BOTH: dict = {"policy": frozenset(), "reference": frozenset()}
POLICY: dict = {"policy": frozenset()}


def needs(roles=PAIR, *columns: str, models=BOTH, exact: bool = True, views=()) -> Needs:
    """What the families' own tests expect of a dry run."""
    return Needs(roles, frozenset(columns), models, dict(views), exact)


def test_what_every_method_needs_is_pinned() -> None:
    NEEDS.check()


def test_an_argument_can_change_what_is_needed() -> None:
    assert dry_run(build("wpo", alignment="greedy")).models["policy"] == {LOG_MAX_P}
    assert dry_run(build("wpo", alignment="none")).models["policy"] == frozenset()


def test_a_combination_needs_what_its_parts_need() -> None:
    found = dry_run(from_config({"method": "simpo", "weight": "wpo", "plus": {"nll": 0.1}}))
    assert found == Needs(PAIR, frozenset(), {"policy": frozenset({LOG_SUM_P_SQUARED})})


def test_roles_stand_chosen_first_whatever_is_touched_first() -> None:
    objective = negative_log_likelihood("gold") + Compare(log_ratio().sum(), Pair("rejected", "chosen"))
    assert dry_run(objective).roles == ("chosen", "rejected", "gold")


def test_addresses_in_views_are_found() -> None:
    found = dry_run(Compare(log_ratio().sum(), Pair("chosen", "chosen@corrupted")))
    assert found.roles == ("chosen",)
    assert found.views["corrupted"] == Needs(
        ("chosen",), frozenset(), {"policy": frozenset(), "reference": frozenset()}
    )


def test_a_pair_may_have_eight_samples_besides() -> None:
    assert len(dry_run(build("hypo", samples=8)).roles) == 10


def test_a_number_per_token_is_no_reward() -> None:
    with pytest.raises(ValueError, match=r"\.sum\(\) or \.mean\(\)"):
        dry_run(Compare(log_ratio()))


def test_numbers_per_token_and_per_response_do_not_mix() -> None:
    with pytest.raises(RuntimeError):
        dry_run(penalty((Logp() + Column("score")).sum()))


def test_a_column_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(PreferoError, match="no data column is called 'scores'; did you mean 'score'"):
        Column("scores")


def test_nobody_needs_to_declare_that_a_quantity_is_unused() -> None:
    objective = build("dpo")
    objective.spare = Logp("teacher")
    assert "teacher" not in dry_run(objective).models
