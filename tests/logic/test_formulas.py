from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from prefero.errors import PreferoError
from prefero.logic.formulas import Decision, Formula, Proposition, diagram, parse, written

W, L = Proposition("policy", "chosen"), Proposition("policy", "rejected")
RW, RL = Proposition("reference", "chosen"), Proposition("reference", "rejected")
FOUR = [W, L, RW, RL]

formulas = st.recursive(
    st.sampled_from([Formula(one) for one in FOUR] + [Formula(True), Formula(False)]),
    lambda parts: st.one_of(
        st.builds(lambda part: Formula("not", (part,)), parts),
        st.builds(
            lambda operator, first, second: Formula(operator, (first, second)),
            st.sampled_from(["and", "or", "implies", "xor", "iff"]),
            parts,
            parts,
        ),
    ),
    max_leaves=12,
)


@given(formulas)
def test_a_formula_reads_back_what_it_writes(formula: Formula) -> None:
    assert parse(str(formula)).assignments(FOUR) == formula.assignments(FOUR)


@given(st.integers(0, 2**16 - 1))
def test_any_set_of_assignments_has_a_formula(assignments: int) -> None:
    assert written(assignments, FOUR).assignments(FOUR) == assignments


def test_ascii_and_symbols_mean_the_same() -> None:
    for ascii_text, symbols in (
        ("~M(y_w) & M(y_l) -> Ref(y_l)", "¬M(y_w) ∧ M(y_l) → Ref(y_l)"),
        ("M(y_w) ^ M(y_l) | false", "M(y_w) ⊕ (M(y_l) ∨ ⊥)"),
        ("M(y_w)<->!Ref( y_w )", "M(y_w) ↔ ¬Ref(y_w)"),
    ):
        assert parse(ascii_text) == parse(symbols)


def test_implication_leans_right_and_binds_loosely() -> None:
    assert parse("M(a) -> M(b) -> M(c)") == parse("M(a) -> (M(b) -> M(c))")
    assert parse("M(a) & M(b) -> M(c) | M(d)") == parse("(M(a) & M(b)) -> (M(c) | M(d))")
    assert parse("M(a) & M(b) | M(c)") == parse("(M(a) & M(b)) | M(c)")


def test_propositions_name_models_and_addresses() -> None:
    assert parse("M(y_w)").head == W
    assert parse("Ref(y_l)").head == RL
    assert parse("previous(gold)").head == Proposition("previous", "gold")
    assert parse("M(chosen@corrupted)").head == Proposition("policy", "chosen@corrupted")
    assert str(parse("policy(chosen)")) == "M(y_w)"


@pytest.mark.parametrize(
    ("text", "place"),
    [("", 1), ("M(y_w) &", 9), ("M(y_w) M(y_l)", 8), ("(M(y_w)", 8), ("w -> l", 1), ("M(y_w) + M(y_l)", 8)],
)
def test_what_is_no_formula_is_refused_at_its_place(text: str, place: int) -> None:
    with pytest.raises(PreferoError, match=rf"no formula.*character {place}\b"):
        parse(text)


def test_a_diagram_asks_only_about_what_matters() -> None:
    count = parse("M(y_w) & Ref(y_l)").assignments(FOUR)
    assert diagram(count, 4) == Decision(3, Decision(0, True, False), False)
    assert diagram(parse("M(y_w) | ~M(y_w)").assignments(FOUR), 4) is True
