"""The papers that there are: found by themselves, and each with what a reader needs."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys

import pytest

from prefero.errors import PreferoError
from prefero.objectives import find as method
from prefero_lab.papers import find, papers
from prefero_lab.papers.paper import Check
from prefero_lab.papers.results import fingerprint
from prefero_lab.papers.survey import areas, chosen, numbered

PAPERS = sorted(papers())


@pytest.mark.parametrize("key", PAPERS)
def test_a_paper_says_what_it_is_and_what_would_refute_it(key):
    paper = papers()[key]
    assert paper.key == key and re.fullmatch(r"p\d{3}", paper.id)
    assert re.search(r"\b(19|20)\d\d\b", paper.citation) and paper.title and paper.adds.endswith(".")
    assert paper.evidence
    for name in paper.methods:
        assert method(name).key == name
    for one in paper.evidence:
        assert one.statement.endswith(".") and one.refuted_by and one.seconds > 0 and one.seeds >= 3


@pytest.mark.parametrize("key", PAPERS)
def test_settings_can_be_kept_and_told_apart(key):
    """What the results on disk are found by."""
    for one in papers()[key].evidence:
        arms = [None] if isinstance(one, Check) else list(one.arms)
        subject = one if isinstance(one, Check) else one.experiment
        marks = [fingerprint(subject, arm, seed) for arm in arms for seed in (100, 101)]
        assert len(set(marks)) == len(marks)
        pickle.dumps(subject)  # for the processes that measure it


@pytest.mark.parametrize("key", PAPERS)
def test_what_was_tuned_was_among_what_was_tried(key):
    for one in papers()[key].evidence:
        for arm in getattr(one, "arms", ()):
            for name, values in arm.grid.items():
                assert arm.settings[name] in values


def test_papers_are_found_by_key_or_number():
    assert find("dpo").title.startswith("Direct Preference") and find("p018").key == "simpo"
    assert {"dpo"} <= {one.key for one in chosen(["p053"])} == {one.key for one in numbered("p053")}
    with pytest.raises(PreferoError, match="did you mean 'simpo'"):
        find("simppo")


def test_papers_are_chosen_once_by_key_area_or_all():
    assert [one.key for one in chosen(["ipo", "dpo", "ipo"])] == ["ipo", "dpo"]
    assert {one.area for one in chosen(area="media")} == {"media"}
    assert [one.key for one in chosen(everything=True)] == list(papers())
    assert chosen() == []
    assert {"media", "objectives"} <= set(areas())
    with pytest.raises(PreferoError, match="did you mean 'media'"):
        chosen(area="medai")


def test_listing_loads_no_models():
    """A hundred and fifty modules are imported to list them; none may load what it only needs to run."""
    program = (
        "import sys; from prefero_lab.papers.survey import papers; papers(); "
        "print([name for name in ('torch', 'transformers', 'diffusers', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
