"""Running evidence: verdicts that follow the numbers, results that are kept, tuning apart from judging."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lab.tests.papers.made_up import MadeUp, paper
from prefero.errors import PreferoError
from prefero_lab.papers import reproduce
from prefero_lab.papers.paper import FIRST_JUDGED_SEED, START, Arm, Check, Claim, Expectation, Number, Paper
from prefero_lab.papers.results import Results
from prefero_lab.papers.table import as_dict
from prefero_lab.papers.verdicts import FAILS, HOLDS, UNCLEAR

S = FIRST_JUDGED_SEED


def test_a_difference_that_is_there_holds_and_its_swap_does_not(tmp_path):
    assert reproduce(paper(), output=tmp_path).verdict == HOLDS
    swapped = paper(Expectation("worse", "better", "gold"))
    assert reproduce(swapped, output=tmp_path).verdict == FAILS
    assert reproduce(paper(Expectation("better", "worse", "kl", "lower")), output=tmp_path).verdict == FAILS


def test_what_only_seeds_decide_is_too_small_to_tell(tmp_path):
    same = paper(Expectation("better", "start", "gold"), experiment=MadeUp(spread=5.0))
    assert reproduce(same, output=tmp_path).verdict == UNCLEAR


def test_a_verdict_follows_the_numbers_and_is_read_from_nowhere(tmp_path):
    """The outcome on disk is for readers: other measurements change the verdict, whatever it says."""
    assert reproduce(paper(), output=tmp_path).verdict == HOLDS
    for file in (tmp_path / "results").iterdir():
        content = json.loads(file.read_text())
        content["metrics"]["gold"] = [-one for one in content["metrics"]["gold"]]
        file.write_text(json.dumps(content))
    assert json.loads((tmp_path / "made_up.json").read_text())["verdict"] == HOLDS
    assert reproduce(paper(), output=tmp_path).verdict == FAILS


def test_beside_has_no_part_in_the_verdict(tmp_path):
    beside = Expectation("worse", "better", "gold", counts=False)
    outcome = reproduce(paper(Expectation("better", "start", "gold"), beside), output=tmp_path)
    assert [one.verdict for one in outcome.evidence[0].comparisons] == [HOLDS, FAILS]
    assert outcome.verdict == HOLDS


def test_every_arm_has_the_same_start_and_seed(tmp_path):
    world = MadeUp()
    reproduce(paper(experiment=world), output=tmp_path, seeds=2)
    expected = [("make", S), ("train", 1.0, S), ("train", 0.5, S)]
    expected += [("make", S + 1), ("train", 1.0, S + 1), ("train", 0.5, S + 1)]
    assert world.calls == expected


def test_interrupted_work_is_taken_up_and_nothing_is_measured_twice(tmp_path):
    world = MadeUp()
    cut = paper(experiment=world, worse={"gain": 0.5, "interrupt": S + 1})
    with pytest.raises(KeyboardInterrupt, match="5 of 9 results of made_up are in"):
        reproduce(cut, output=tmp_path)
    assert len(list((tmp_path / "results").iterdir())) == 5
    assert not (tmp_path / "made_up.json").exists()
    world.calls.clear()
    told = []
    whole = paper(experiment=world, worse={"gain": 0.5, "interrupt": S + 1})
    with pytest.raises(KeyboardInterrupt):
        reproduce(whole, output=tmp_path, progress=lambda *one: told.append(one))
    assert world.calls == [("make", S + 1), ("train", 0.5, S + 1)]
    assert told == [(5, 9, f"seed {S + 1}: worse")]
    world.calls.clear()
    reproduce(paper(experiment=world), output=tmp_path)
    assert ("train", 1.0, S + 2) in world.calls and ("train", 1.0, S) not in world.calls
    world.calls.clear()
    reproduce(paper(experiment=world), output=tmp_path)
    assert world.calls == []
    reproduce(paper(experiment=world), output=tmp_path, fresh=True)
    assert len(world.calls) == 9


def test_papers_share_an_arm_and_fresh_measures_it_once(tmp_path):
    world, results = MadeUp(), Results(tmp_path, fresh=True)
    reproduce(paper(experiment=world), output=results)
    reproduce(paper(experiment=world, key="other", better={"gain": 2.0}), output=results)
    assert world.calls.count(("train", 0.5, S)) == 1
    assert {file.name for file in tmp_path.glob("*.json")} == {"made_up.json", "other.json"}


def test_other_settings_of_arm_or_experiment_are_measured_anew(tmp_path):
    reproduce(paper(), output=tmp_path)
    for changed in (paper(experiment=MadeUp(prompts=60)), paper(better={"gain": 1.5}, worse={"gain": 0.6})):
        world = changed.evidence[0].experiment
        reproduce(changed, output=tmp_path)
        assert len([call for call in world.calls if call[0] == "train"]) == 6


def test_a_file_that_was_cut_off_is_measured_anew(tmp_path):
    reproduce(paper(), output=tmp_path)
    damaged = sorted((tmp_path / "results").iterdir())[0]
    damaged.write_text(damaged.read_text()[:20])
    assert reproduce(paper(), output=tmp_path).verdict == HOLDS
    assert json.loads(damaged.read_text())


def test_results_of_other_code_are_said_to_be(tmp_path, monkeypatch):
    assert reproduce(paper(), output=tmp_path).outdated == 0
    monkeypatch.setattr("prefero_lab.papers.outcome.library", lambda: "another")
    assert reproduce(paper(), output=tmp_path).outdated == 9


def tunable(world: MadeUp, **changes) -> Paper:
    claim = Claim(
        statement="tuned",
        experiment=world,
        arms=(START, Arm("arm", {"gain": 0.1}, {"gain": (0.1, 3.0, 2.0)})),
        expected=(Expectation("arm", "start", "gold", by=2.5),),
        refuted_by="no gain",
        seconds=1,
        **changes,
    )
    return Paper("p000", "t", "Nobody, 2020", "nothing", (claim,), key="tunable", area="nowhere")


def test_step_sizes_are_tuned_on_seeds_that_are_not_judged(tmp_path):
    world = MadeUp()
    assert reproduce(tunable(world), output=tmp_path).verdict == FAILS
    world.calls.clear()
    outcome = reproduce(tunable(world), output=tmp_path, tune=True)
    assert outcome.verdict == HOLDS
    (tuned,) = outcome.evidence[0].tuned
    assert tuned.chosen == {"gain": 3.0} and len(tuned.candidates) == 3
    assert {call[2] for call in world.calls if call[0] == "train" and call[1] != 3.0} == {0, 1}
    assert world.calls.count(("make", 0)) == 1
    assert as_dict(outcome)["evidence"][0]["arms"]["arm"]["settings"] == {"gain": 3.0}
    with pytest.raises(PreferoError, match="are judged, and cannot be tuned on"):
        tunable(world, tuning_seeds=(0, S))
    with pytest.raises(PreferoError, match="are judged, and cannot be tuned on"):
        tunable(world, judged_from=S - 1)


def test_a_claim_changed_after_a_look_is_judged_on_seeds_not_seen(tmp_path):
    world = MadeUp()
    outcome = reproduce(tunable(world, judged_from=S + 100), output=tmp_path)
    assert outcome.evidence[0].seeds == (S + 100, S + 101, S + 102)
    assert {call[-1] for call in world.calls} == {S + 100, S + 101, S + 102}


def test_where_less_is_better_tuning_takes_the_least(tmp_path):
    one = tunable(MadeUp())
    down = replace(one.evidence[0], expected=(Expectation("arm", "start", "gold", "lower"),))
    outcome = reproduce(replace(one, evidence=(down,)), output=tmp_path, tune=True)
    assert outcome.evidence[0].tuned[0].chosen == {"gain": 0.1}


def checked(*numbers: Number) -> Paper:
    check = Check("an identity", lambda seed: numbers, "another number", seconds=1, seeds=2)
    return Paper("p000", "t", "Nobody, 2020", "nothing", (check,), key="checked", area="nowhere")


def test_a_check_holds_if_every_number_lies_where_it_has_to(tmp_path):
    good, low = Number.near("ln 2", 0.6931472, 0.6931472), Number("bounded", -2.0, high=-1.0)
    assert reproduce(checked(good, low), output=tmp_path / "good").verdict == HOLDS
    wrong = Number.near("ln 2", 0.7, 0.6931472)
    outcome = reproduce(checked(good, wrong), output=tmp_path / "wrong")
    assert outcome.verdict == FAILS and len(outcome.evidence[0].numbers) == 2
    again = reproduce(checked(good, wrong), output=tmp_path / "wrong")
    assert again.evidence[0].numbers == outcome.evidence[0].numbers
    assert reproduce(checked(Number("nan", float("nan"))), output=tmp_path / "nan").verdict == FAILS


def test_a_claim_about_nothing_that_is_measured_is_refused(tmp_path):
    with pytest.raises(PreferoError, match=r"nothing measures 'silver'.*gold, kl"):
        reproduce(paper(Expectation("better", "worse", "silver")), output=tmp_path)
    with pytest.raises(PreferoError, match="'best', which is no arm"):
        paper(Expectation("best", "worse", "gold"))
    with pytest.raises(PreferoError, match="at least one is needed"):
        reproduce(paper(), output=tmp_path, seeds=0)
