from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from prefero.errors import PreferoError
from prefero.logic import PUBLISHED, PreferenceStructure, decompile, every_structure, structure
from prefero.logic.structures import from_assignments, weighted_count

NUMERATOR_AND_DENOMINATOR = {
    "cross_entropy": (lambda w, x: w, lambda w, x: 1 - w),
    "unlikelihood": (lambda w, x: w * (1 - x), lambda w, x: 1 - w * (1 - x)),
    "f_unlikelihood": (lambda w, x: 1 - x, lambda w, x: x),
    "cpo": (lambda w, x: w, lambda w, x: x),
    "simpo": (lambda w, x: w, lambda w, x: x),
    "orpo": (lambda w, x: w * (1 - x), lambda w, x: x * (1 - w)),
    "ccpo": (lambda w, x: w, lambda w, x: x * (1 - w)),
    "dpo": (lambda w, x, rw, rx: w * rx, lambda w, x, rw, rx: x * rw),
}
PROPOSITIONS = ["M(y_w)", "M(y_l)", "Ref(y_w)", "Ref(y_l)"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_ratio_decompiles_to_its_structure(name: str) -> None:
    sides = NUMERATOR_AND_DENOMINATOR[name]
    found = decompile(*sides, PROPOSITIONS[: 4 if name == "dpo" else 2])
    assert found.equivalent(PUBLISHED[name].structure)


def test_decompiled_formulas_read_as_in_the_paper() -> None:
    dpo = decompile(*NUMERATOR_AND_DENOMINATOR["dpo"], PROPOSITIONS)
    assert str(dpo.formula) == "(M(y_l) ∧ Ref(y_w)) → (M(y_w) ∧ Ref(y_l))"
    cpo = decompile(*NUMERATOR_AND_DENOMINATOR["cpo"], PROPOSITIONS[:2])
    assert [str(part) for part in (cpo.formula, cpo.condition, cpo.both)] == [
        "M(y_l) → M(y_w)",
        "M(y_w) ∨ M(y_l)",
        "M(y_w) ∧ M(y_l)",
    ]


structures_of_two = st.tuples(st.integers(1, 15), st.integers(1, 15))


@given(structures_of_two)
def test_a_structure_keeps_its_marks_through_formulas(sides: tuple[int, int]) -> None:
    propositions = PUBLISHED["ccpo"].structure.propositions
    assert from_assignments(*sides, propositions).over(propositions) == sides


def test_two_propositions_make_256_structures() -> None:
    assert len(list(every_structure(PUBLISHED["cpo"].structure.propositions))) == 256


def loss(one: PreferenceStructure, w: float, x: float) -> float:
    probabilities = dict(zip(PUBLISHED["cpo"].structure.propositions, (w, x), strict=True))
    inside = [probabilities[proposition] for proposition in one.propositions]
    ratio = weighted_count(one.preferred, inside) / weighted_count(one.dispreferred, inside)
    return math.log1p(1 / ratio)


@given(structures_of_two, structures_of_two, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_an_entailing_structure_never_has_the_smaller_loss(first, second, w: float, x: float) -> None:
    propositions = PUBLISHED["cpo"].structure.propositions
    one, other = from_assignments(*first, propositions), from_assignments(*second, propositions)
    if one.entails(other):
        assert loss(one, w, x) >= loss(other, w, x) - 1e-12


def test_the_order_of_published_losses() -> None:
    orpo, ccpo, cpo = (PUBLISHED[name].structure for name in ("orpo", "ccpo", "cpo"))
    assert orpo.entails(ccpo) and not ccpo.entails(orpo)
    assert cpo.entails(ccpo) and not ccpo.entails(cpo)
    assert not orpo.entails(cpo) and not cpo.entails(orpo)
    assert PUBLISHED["unlikelihood"].structure.entails(PUBLISHED["cross_entropy"].structure)
    assert PUBLISHED["unlikelihood"].structure.entails(orpo), "less speaks against the preference of orpo"


def test_a_reference_makes_dpo_of_cpo() -> None:
    assert PUBLISHED["cpo"].structure.against_reference().equivalent(PUBLISHED["dpo"].structure)
    with pytest.raises(PreferoError, match="policy alone"):
        PUBLISHED["dpo"].structure.against_reference()


def test_neighbours_differ_in_one_assignment() -> None:
    ccpo = PUBLISHED["ccpo"].structure
    found = list(ccpo.neighbours())
    # three other marks for each of four assignments, less the one that leaves nothing against it
    changes = [
        sum(a != b for a, b in zip(one.marks(), ccpo.marks(), strict=True))
        for one in found
        if one.propositions == ccpo.propositions
    ]
    assert changes and set(changes) == {1}
    assert len(found) == 4 * 3 - 2


def test_a_preference_with_nothing_against_it_is_refused() -> None:
    with pytest.raises(PreferoError, match="nothing speaks against"):
        structure("true")
    with pytest.raises(PreferoError, match="nothing speaks for"):
        structure("M(y_w)", "~M(y_w)")


def test_what_is_no_weighted_count_is_not_decompiled() -> None:
    with pytest.raises(PreferoError, match="0 or 1"):
        decompile(lambda w: 2 * w, lambda w: 1 - w, ["M(y_w)"])
    with pytest.raises(PreferoError, match="linear"):
        decompile(lambda w: w * w, lambda w: 1 - w, ["M(y_w)"])
    with pytest.raises(PreferoError, match="no proposition"):
        decompile(lambda w: w, lambda w: 1 - w, ["~M(y_w)"])
