"""Results stay valid when code is moved or reworded, and no longer when what it computes changes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab.tests.papers.made_up import MadeUp, paper
from prefero_lab.papers import papers, syntax
from prefero_lab.papers.paper import Check, Expectation, Number, Paper
from prefero_lab.papers.results import evidence_digest, fingerprint

GAINS = '''
"""Gains."""

from dataclasses import dataclass
from importlib import import_module

from prefero.objectives import method as built
from prefero.theory.optima import kl

SCALE = 2.0
"""How much a gain counts."""


def scaled(gain):
    if gain < 0:
        raise ValueError("a gain is at least 0")
    return SCALE * kl(gain)


@dataclass(frozen=True)
class Gains:
    """An experiment."""

    prompts: int = 64

    def measure(self, made, model, *, seed=0):
        """Numbers by metric."""
        world = import_module("prefero.worlds.reviews")
        found = [scaled(one) for one in made if one != seed]  # the others count
        first, last = found[0], found[-1]
        return {"gold": sum(found) / self.prompts, "change": last - first, "loss": built("dpo")(model, world)}


def another(seed):
    return seed
'''

HOME = "prefero_lab.papers.gains"


@pytest.fixture
def digest(monkeypatch):
    """The digest of the class ``Gains`` (or another root) among modules given by their sources."""

    def digest(sources, root="Gains", place=HOME):
        modules = {name: syntax.Module(source) for name, source in sources.items()}
        monkeypatch.setattr(syntax, "module_of", modules.get)
        monkeypatch.setattr(syntax, "file_of", lambda name: Path(name) if name in modules else None)
        return syntax.digest(type(root, (), {"__module__": place, "__qualname__": root}))

    return digest


def edited(*edits):
    source = GAINS
    for before, after in edits:
        assert before in source
        source = source.replace(before, after)
    return source


KEPT = {
    "a docstring": [('"""An experiment."""', '"""What it is."""')],
    "no docstring": [('        """Numbers by metric."""\n', "")],
    "the docstring of a constant": [('"""How much a gain counts."""\n', "")],
    "a comment": [("# the others count", "# without the seed's own")],
    "an annotation": [("def scaled(gain):", "def scaled(gain: float) -> float:")],
    "the message of an error": [("a gain is at least 0", "gains are not negative")],
    "a local variable": [("found", "gains")],
    "a variable of a comprehension": [("scaled(one) for one in made if one", "scaled(x) for x in made if x")],
    "a positional parameter": [("made", "data")],
    "an import's module": [("from prefero.theory.optima", "from prefero.theory.divergences")],
    "an import's alias": [("method as built", "method as objective"), ("built(", "objective(")],
    "an imported module": [
        ("from prefero.theory.optima import kl", "from prefero.theory import optima"),
        ("kl(gain)", "optima.kl(gain)"),
    ],
    "an import within": [
        ("from prefero.objectives import method as built\n", ""),
        ("        world =", "        from prefero.objectives import method as built\n\n        world ="),
    ],
    "a module's name": [('"prefero.worlds.reviews"', '"prefero.demo.reviews"')],
    "what is not named": [("    return seed\n", "    return 2 * seed\n")],
}


@pytest.mark.parametrize("edits", KEPT.values(), ids=KEPT)
def test_rewording_keeps_the_digest(digest, edits):
    optima = {"prefero.theory.optima": ""}  # an import from prefero.theory is of a module
    assert digest({HOME: edited(*edits), **optima}) == digest({HOME: GAINS, **optima})


CHANGED = {
    "a constant": [("SCALE = 2.0", "SCALE = 3.0")],
    "a formula": [("last - first", "first - last")],
    "a default": [("prompts: int = 64", "prompts: int = 32")],
    "the default of a keyword": [("seed=0", "seed=1")],
    "the name of a keyword": [("seed", "number")],
    "an attribute": [("prompts", "texts")],
    "an argument": [('built("dpo")', 'built("ipo")')],
    "a function of the library": [("import kl", "import reverse_kl as kl")],
    "a condition": [("one != seed", "one > seed")],
    "a decorator": [("frozen=True", "frozen=False")],
    "the name of a metric": [('"change"', '"difference"')],
    "a world": [("worlds.reviews", "worlds.safety")],
}


@pytest.mark.parametrize("edits", CHANGED.values(), ids=CHANGED)
def test_another_computation_has_another_digest(digest, edits):
    assert digest({HOME: edited(*edits)}) != digest({HOME: GAINS})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("lambda a, b: a - b", "lambda a, b: b - a"),
        ("lambda a, *b, **c: (b, c)", "lambda a, *b, **c: (c, b)"),
        ("[a for a in x for b in y]", "[b for a in x for b in y]"),
        ("{a: b for a, b in x}", "{b: a for a, b in x}"),
        ("lambda x: [x for x in y]", "lambda x: [x for z in y]"),
        ("(lambda a=1, *, b=2: a)()", "(lambda a=2, *, b=1: a)()"),
        ("'1'", "1"),
        ("1", "1.0"),
        ("True", "1"),
        ("f'{x:.2f}'", "f'{x:.3f}'"),
        ("x if y else z", "z if y else x"),
    ],
)
def test_numbering_local_variables_loses_no_difference(digest, one, other):
    found = [digest({HOME: f"x, y, z = 1, 2, 3\nGains = {text}"}) for text in (one, other)]
    assert found[0] != found[1]


def test_names_that_patterns_and_inner_functions_bind_are_told_apart(digest):
    body = "def Gains(x):\n    def first(): return 1\n    def last(): return 2\n    return {}()"
    assert digest({HOME: body.format("first")}) != digest({HOME: body.format("last")})
    match = (
        "def Gains(x):\n    match x:\n        case [a, *b]: return {}\n        case {{'k': a, **b}}: return a"
    )
    assert digest({HOME: match.format("a")}) != digest({HOME: match.format("b")})


def test_a_definition_may_move_with_its_module_and_to_another(digest):
    whole = digest({HOME: GAINS})
    assert (
        digest({"prefero_lab.papers.theory.gains": GAINS}, place="prefero_lab.papers.theory.gains") == whole
    )

    start, end = GAINS.index("SCALE"), GAINS.index("@dataclass")
    helpers = "from prefero.theory.optima import kl\n\n\n" + GAINS[start:end]
    rest = "from prefero_lab.papers.helpers import scaled\n" + GAINS[:start] + GAINS[end:]
    assert digest({HOME: rest, "prefero_lab.papers.helpers": helpers}) == whole
    changed = helpers.replace("SCALE = 2.0", "SCALE = 3.0")
    assert digest({HOME: rest, "prefero_lab.papers.helpers": changed}) != whole


def test_what_is_imported_from_outside_the_package_counts_by_name(digest):
    rest = "from prefero_lab.worlds.bandit import Bandit\n\n\nGains = Bandit(3)"
    worlds = ({"prefero_lab.worlds.bandit": f"def Bandit(size): return {body}"} for body in ("size", "0"))
    first, second = (digest({HOME: rest, **world}) for world in worlds)
    assert first == second != digest({HOME: rest.replace("Bandit(3)", "Bandit(4)")})


def test_bases_from_modules_of_ones_own_count():
    """An experiment outside this package, with another one's method."""
    longer = fingerprint(Longer(), None, 100)
    assert longer != fingerprint(MadeUp(), None, 100)
    names = [text for text in syntax._reached(type(Longer()).__mro__[:2]) if '"global MadeUp"' in text]
    assert any('"measure"' in text for text in names)


class Longer(MadeUp):
    """Reworded."""


def test_how_a_paper_is_worded_does_not_count_and_how_it_is_measured_does():
    expected = Expectation("better", "worse", "gold", by=0.1)
    one = paper(expected)
    (claim,) = one.evidence
    reworded = replace(claim, statement="Gains are gains.", refuted_by="losses", seconds=9)
    kept = replace(one, title="Another", note="A note.", evidence=(reworded,))
    assert evidence_digest(kept) == evidence_digest(one)
    better = next(arm for arm in claim.arms if arm.name == "better")
    for changed in (
        replace(claim, expected=(replace(expected, by=0.2),)),
        replace(claim, expected=(replace(expected, direction="lower"),)),
        replace(claim, expected=(replace(expected, counts=False), expected)),
        replace(claim, experiment=MadeUp(spread=0.1)),
        replace(claim, experiment=Longer()),
        replace(
            claim,
            arms=tuple(replace(arm, settings={"gain": 2.0}) if arm is better else arm for arm in claim.arms),
        ),
        replace(claim, seeds=5),
        replace(claim, judged_from=200),
    ):
        assert evidence_digest(replace(one, evidence=(changed,))) != evidence_digest(one)


def first_number(seed):
    return (Number("one", 1.0),)


def second_number(seed):
    return (Number("two", 2.0),)


def test_checks_are_told_apart_by_what_they_run():
    def check(run, statement="An identity."):
        return Paper("p000", "t", "Nobody, 2020", "nothing", (Check(statement, run, "another", seconds=1),))

    assert evidence_digest(check(first_number)) == evidence_digest(check(first_number, "The same."))
    assert evidence_digest(check(first_number)) != evidence_digest(check(second_number))
    inner = [check(lambda seed: (), statement) for statement in ("One.", "Another.")]
    assert evidence_digest(inner[0]) != evidence_digest(inner[1])  # their code is one statement


def test_digests_of_the_survey_load_no_models():
    """They are looked at in every test run, and must not cost what a measurement does."""
    import subprocess

    program = (
        "import sys; from prefero_lab.papers.survey import papers; from prefero_lab.papers.results import "
        "evidence_digest; [evidence_digest(one) for one in papers().values()]; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_digest_of_files_is_the_same_however_they_are_divided(tmp_path):
    """So that merging modules of the library outdates nothing."""
    whole, first, second = (tmp_path / name for name in ("whole.py", "first.py", "second.py"))
    head = "from __future__ import annotations\n\nfrom prefero.theory.optima import kl\n\n"
    one, other = "def one(x):\n    return kl(x)\n\n\n", "def other(x):\n    return 2 * one(x)\n"
    whole.write_text(head + one + other)
    first.write_text(head + one + '__all__ = ["one"]\n')
    second.write_text('"""The rest."""\n\nfrom prefero.first import one\n\n' + other)
    assert syntax.digest_of_files([whole]) == syntax.digest_of_files([second, first])
    second.write_text(second.read_text().replace("2 *", "3 *"))
    assert syntax.digest_of_files([whole]) != syntax.digest_of_files([second, first])


def test_every_root_of_the_survey_is_found():
    """A digest of nothing would never change."""
    for one in papers().values():
        for evidence in one.evidence:
            root = evidence.run if isinstance(evidence, Check) else type(evidence.experiment)
            assert any(syntax._reached([root])), f"{one.key}: {root} is not found in its module"
