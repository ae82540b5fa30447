"""Faults planted at a known rate: what is found must hold the rate in its interval, and nothing else may be
found that was not planted."""

from __future__ import annotations

import random

import pytest

import prefero
from prefero.doctor.checks import Finding
from prefero.doctor.inspection import Inspection
from prefero.doctor.labels import agreement
from tests.doctor import faults

COUNT = 800


def inside(rate: float, finding: Finding, number: int = 0) -> bool:
    interval = finding.measures[number].interval
    return interval is not None and rate in interval


@pytest.fixture(scope="module")
def clean() -> Inspection:
    return prefero.inspect(faults.clean(COUNT))


def test_clean_rows_have_no_faults(clean):
    """But that the words of the two sides are told apart, which was planted."""
    assert {one.key for one in clean.findings if one.level != "fine"} <= {"separability"}
    assert inside(0.0, clean["noise"]) and clean["noise"].measures[0].interval.high < 0.05
    assert inside(0.5, clean["length_bias"])
    assert clean.pairs == clean.rows == COUNT


@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_flipped_labels(rate):
    found = prefero.inspect(faults.flipped(faults.clean(COUNT), rate))
    assert inside(rate, found["noise"])
    assert found["noise"].level == ("act" if rate > 0.2 else "look")
    assert found["noise"].measures[0].interval.high - found["noise"].measures[0].interval.low < 0.2


@pytest.mark.oldest
def test_flipped_labels_of_weakly_told_sides_stay_in_a_wide_interval():
    found = prefero.inspect(faults.flipped(faults.clean(COUNT, signal=1), 0.2))
    assert inside(0.2, found["noise"])
    assert "cannot be told well" in found["noise"].message


def test_judgements_made_again_tell_of_flips_without_a_classifier():
    rows = faults.clean(600, signal=0)
    found = prefero.inspect([*faults.flipped(rows, 0.15, seed=1), *faults.flipped(rows, 0.15, seed=2)])
    assert "judged repeatedly" in found["noise"].measures[0].name
    assert inside(0.15, found["noise"])
    contradicting = 2 * 0.15 * 0.85
    assert inside(contradicting, found["contradictions"])
    assert found["contradictions"].level == "act"


def test_repeated_rows():
    rows = faults.repeated(faults.clean(COUNT), 80)
    found = prefero.inspect(rows)
    assert found["duplicates"].measures[0].count == 80 and inside(80 / (COUNT + 80), found["duplicates"])
    assert found["duplicates"].level == "act"
    kept = found.without(["duplicates"])
    assert len(kept) == COUNT and len({rows[row]["prompt"] for row in kept}) == COUNT


@pytest.mark.oldest
def test_nearly_repeated_rows_and_near_contradictions():
    rows = faults.clean(COUNT, words=60)
    near = [{**row, "chosen": f"{row['chosen']} mal"} for row in rows[:40]]
    swapped = [
        {**row, "chosen": f"{row['rejected']} mal", "rejected": row["chosen"]} for row in rows[100:120]
    ]
    found = prefero.inspect([*rows, *near, *swapped])
    assert found["near_duplicates"].measures[0].count == 40
    assert set(found["near_duplicates"].rows) == set(range(COUNT, COUNT + 40))
    assert set(found["near_contradictions"].rows) == {*range(100, 120), *range(COUNT + 40, COUNT + 60)}
    assert not found["duplicates"].rows and not found["contradictions"].rows


def test_other_responses_to_a_long_prompt_are_no_near_repetition():
    """A measure on the whole row would call them near: the prompt is nine tenths of it."""
    draw = random.Random(0)
    prompts = [faults.text(draw, 300) for _ in range(50)]
    rows = [
        {"prompt": prompt, "chosen": faults.text(draw, 15), "rejected": faults.text(draw, 15)}
        for prompt in prompts
        for _ in range(3)
    ]
    assert not prefero.inspect(rows)["near_duplicates"].rows


def test_cycles_but_not_chains():
    def pair(prompt: str, better: str, worse: str) -> faults.Row:
        return {"prompt": prompt, "chosen": better, "rejected": worse}

    circle = [pair("p", "aa", "bb"), pair("p", "bb", "cc"), pair("p", "cc", "aa"), pair("p", "aa", "dd")]
    chain = [pair("q", "aa", "bb"), pair("q", "bb", "cc"), pair("q", "aa", "cc")]
    elsewhere = [pair("r", "aa", "bb"), pair("s", "bb", "cc"), pair("t", "cc", "aa")]
    both = [pair("u", "aa", "bb"), pair("u", "bb", "aa"), pair("u", "bb", "cc")]
    found = prefero.inspect([*circle, *chain, *elsewhere, *both, circle[1]])
    assert found["cycles"].rows == (0, 1, 2, 13)
    assert found["contradictions"].rows == (10, 11)


@pytest.mark.parametrize(("rate", "level"), [(0.8, "act"), (0.2, "act"), (0.5, "fine")])
def test_length_biased_labels(rate, level):
    draw = random.Random(0)
    rows = [
        {
            "prompt": f"{i} {faults.text(draw, 6)}",
            "chosen": faults.text(draw, draw.randint(8, 40)),
            "rejected": faults.text(draw, draw.randint(8, 40)),
        }
        for i in range(COUNT)
    ]
    found = prefero.inspect(faults.longer_chosen(rows, rate, seed=3))["length_bias"]
    assert inside(max(rate, 1 - rate), found) and found.level == level
    if rate != 0.5:
        assert inside(rate, found, 2) is False  # any two responses overlap more than those of a pair


def test_nearly_identical_pairs():
    found = prefero.inspect(faults.nearly_identical(faults.clean(COUNT), 120))
    assert found["near_identical"].measures[0].count == 120 and inside(0.15, found["near_identical"])
    assert found["near_identical"].level == "act"


def test_pairs_of_one_text_but_for_white_space():
    rows = faults.clean(300)
    rows[7] = {**rows[7], "rejected": f"  {rows[7]['chosen'].upper()}\n"}
    assert prefero.inspect(rows)["identical"].rows == (7,)


def test_prompts_on_both_sides_of_a_split():
    rows, draw = faults.clean(COUNT, words=40), random.Random(0)
    held_out = faults.clean(200, seed=9)
    for row, old in zip(held_out[:30], draw.sample(rows, 30), strict=True):
        row["prompt"] = f" {old['prompt']}\n"
    for row in held_out[30:40]:
        row["prompt"] = f"{row['prompt']} {' '.join(faults.WORDS[20:60])}"
    near = [{**row, "prompt": f"{row['prompt']} bal"} for row in held_out[30:40]]
    found = prefero.inspect([*rows, *near], eval_data=held_out)["overlap"]
    assert found.measures[0].count == 40 and inside(0.2, found)
    assert found.measures[1].count == 30 and found.measures[2].count == 0
    assert len(found.rows) == 40 and set(range(COUNT, COUNT + 10)) <= set(found.rows)
    assert found.level == "act"


def test_a_share_held_out_shares_no_prompt():
    rows = [*faults.clean(300), *faults.clean(300)]
    found = prefero.inspect(rows, eval_data=0.2)
    assert found["overlap"].measures[1].count == 0
    assert found.rows == 480


def test_scores_against_labels_and_ties():
    rows, draw = faults.clean(COUNT), random.Random(0)
    against = 0
    for row in rows:
        wrong = draw.random() < 0.1
        against += wrong
        row |= {"chosen_score": 1.0 if wrong else 3.0, "rejected_score": 2.0}
    found = prefero.inspect(rows)["scores"]
    assert found.remedies[0].what == "Remove these pairs."
    assert found.measures[0].count == against and inside(0.1, found) and found.level == "act"
    tied = [{**row, "tie": i < 80} for i, row in enumerate(faults.clean(COUNT))]
    found = prefero.inspect(tied)
    assert inside(0.1, found["ties"]) and found.pairs == COUNT - 80


def test_exchanged_columns_are_no_rows_to_remove(tmp_path):
    rows = [{**row, "chosen_score": 1.0, "rejected_score": 9.0} for row in faults.clean(40)]
    inspection = prefero.inspect(rows)
    assert "exchanged in the columns" in inspection["scores"].remedies[0].what
    with pytest.raises(prefero.PreferoError, match="no row is left"):
        inspection.save(tmp_path / "kept.jsonl", without=["scores"])
    assert not (tmp_path / "kept.jsonl").exists()


def test_writers_and_style():
    rows, draw = faults.clean(COUNT, signal=0), random.Random(0)
    for row in rows:
        first = draw.random() < 0.85
        row |= dict(zip(("chosen_model", "rejected_model"), ("s", "w") if first else ("w", "s"), strict=True))
        row["chosen" if first else "rejected"] += " Certainly!"
    found = prefero.inspect(rows)
    assert inside(0.85, found["writers"]) and found["writers"].level == "act"
    assert inside(0.85, found["separability"]) and found["separability"].level == "look"
    assert "“certainly”" in found["separability"].message or "“!”" in found["separability"].message


def test_marks_scripts_empties_and_bad_rows():
    rows = faults.clean(400)
    rows[3]["chosen"] += "<|im_end|>"
    rows[5]["rejected"] += "\n\nHuman: and now?"
    rows[9]["chosen"] = "Это ответ по-русски."
    rows[11]["rejected"] = None
    rows[12]["rejected"] = rows[12]["chosen"]
    found = prefero.inspect(rows)
    assert found["markup"].rows == (3, 5) and found["scripts"].rows == (9,)
    unreadable = found["unreadable"]
    assert unreadable.measures[0].count == 2 and unreadable.level == "act"
    assert found.rows == 398 and "row 12" in unreadable.specimens[0].where


def test_labelled_responses():
    draw = random.Random(0)
    rows = [
        {"prompt": f"{i}", "completion": faults.text(draw, 30 if i % 2 else 20), "label": bool(i % 2)}
        for i in range(300)
    ]
    rows += [dict(rows[0]), {**rows[1], "label": False}]
    found = prefero.inspect(rows)
    assert found["length_bias"].level == "act"
    assert found["duplicates"].rows == (300,) and found["contradictions"].rows == (1, 301)
    assert "separability" not in found


def test_lists_are_read_as_best_against_worst():
    draw = random.Random(0)
    rows = [
        {"prompt": f"{i}", "responses": [faults.text(draw, 9) for _ in range(4)], "scores": [1, 4, 2, 3]}
        for i in range(60)
    ]
    rows.append({"prompt": "tied", "responses": ["a", "b"], "scores": [1, 1]})
    found = prefero.inspect(rows)
    assert found.pairs == 60 and found["ties"].rows == (60,)
    assert dict(found.facts)["lists, read as best against worst"] == 60


def test_what_a_limit_cuts_off():
    rows = faults.clean(200)
    rows[0]["chosen"] = faults.text(random.Random(0), 400)
    found = prefero.inspect(rows, max_length=200)["truncation"]
    assert found.rows == (0,) and found.measures[1].count == 1


def test_flips_planted_in_hh(hh):
    """Natural noise unknown: with a fifth of the labels flipped the estimate must not exclude a fifth."""
    found = prefero.inspect(faults.flipped(hh[:1200], 0.2))
    assert inside(0.2, found["noise"])


def test_repetitions_and_leaks_planted_in_hh(hh):
    rows = [
        *hh[:600],
        *hh[:60],
        *({**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in hh[60:90]),
    ]
    found = prefero.inspect(rows, eval_data=[*hh[590:600], *hh[700:890]])
    assert inside(60 / 690, found["duplicates"])
    assert inside(60 / 690, found["contradictions"]) and len(found["contradictions"].rows) == 60
    overlap = found["overlap"]
    assert overlap.measures[1].count == 10 and inside(10 / 200, overlap)


def test_length_bias_planted_in_hh(hh):
    pairs = [(row, prefero.load_examples([row])[0]) for row in hh[:1000]]
    draw, rows = random.Random(0), []
    for row, example in pairs:
        lengths = [len(response.content) for response in example.responses]
        if lengths[0] != lengths[1]:
            keep = (lengths[0] > lengths[1]) == (draw.random() < 0.75)
            rows.append(row if keep else {"chosen": row["rejected"], "rejected": row["chosen"]})
    assert inside(0.75, prefero.inspect(rows)["length_bias"])


def test_votes_planted_in_pandalm(pandalm):
    """Each vote redrawn to the other side with a probability: the rate of single votes is found again."""
    draw, rows = random.Random(0), []
    for row in pandalm:
        side = draw.choice((1, 2))
        votes = {f"annotator{k}": 3 - side if draw.random() < 0.12 else side for k in (1, 2, 3)}
        rows.append({**row, **votes})
    found = prefero.inspect(rows)
    single = next(one for one in found["noise"].measures if one.name.startswith("single votes"))
    assert 0.12 in single.interval
    assert inside(3 * 0.12**2 * 0.88 + 0.12**3, found["noise"])
    assert found["agreement"].level in ("look", "act")


@pytest.mark.parametrize(
    "written", [str, int, lambda vote: f"{vote}.0", float], ids=["2", "2 (int)", "2.0", "2.0 (float)"]
)
def test_a_vote_is_the_same_however_it_is_written(written):
    """One file may have "2", 2, "2.0" and 2.0: another kind of vote each, they would halve the agreement."""
    draw = random.Random(0)
    cast = [
        [draw.choice((0, 1, 2)) if draw.random() < 0.4 else 1 + row % 2 for _ in range(3)]
        for row in range(200)
    ]

    def rows(*forms):
        return [
            {"instruction": f"{row}", "response1": f"a{row}", "response2": f"b{row}"}
            | {f"annotator{k + 1}": forms[(row + k) % len(forms)](vote) for k, vote in enumerate(votes)}
            for row, votes in enumerate(cast)
        ]

    plain, other = prefero.inspect(rows(int)), prefero.inspect(rows(int, written))
    assert other["agreement"].measures == plain["agreement"].measures
    assert other["agreement"].rows == plain["agreement"].rows
    assert other["noise"].measures == plain["noise"].measures


def test_the_majority_is_not_the_first_response(pandalm):
    """Agreement is over the votes as they were cast; relative to the chosen response every majority is alike,
    and chance explains most of the agreement."""
    found = prefero.inspect(pandalm)
    votes = [[row[f"annotator{k}"] for k in (1, 2, 3)] for row in pandalm]
    assert found["agreement"].measures[0].value == pytest.approx(agreement(range(len(votes)), votes).alpha)


def test_what_pandalm_holds_by_itself(pandalm):
    found = prefero.inspect(pandalm)
    assert found["agreement"].measures[0].value > 0.8
    assert found["ties"].measures[0].count == 105
    assert found["cycles"].measures[0].count == 3
    assert "llama-7b" in found["writers"].message


def test_near_identical_pairs_planted_in_hh(hh):
    """Every sixth rejected side is the chosen one with a word more at its end."""
    rows = [{**row, "rejected": f"{row['chosen']} zzz"} if i % 6 == 0 else row for i, row in enumerate(hh)]
    long = [row for row in rows[:900] if len(row["chosen"].rsplit("Assistant:", 1)[-1].split()) >= 15]
    planted = sum(row["rejected"].endswith(" zzz") for row in long) / len(long)
    assert inside(planted, prefero.inspect(long)["near_identical"])


def judged(rows):
    """Rows on which annotators have one side, and both responses say something."""
    votes = [{row[f"annotator{k}"] for k in (1, 2, 3)} for row in rows]
    return [
        row
        for row, seen in zip(rows, votes, strict=True)
        if seen in ({1}, {2}) and all(str(row[name]).strip() for name in ("response1", "response2"))
    ]


def test_leaks_planted_in_pandalm(pandalm):
    once = {(row["instruction"], row["input"]): row for row in judged(pandalm)}
    rows = list(once.values())
    found = prefero.inspect(rows[:100], eval_data=[*rows[:12], *rows[100:140]])
    assert inside(12 / 52, found["overlap"])


@pytest.mark.parametrize("rate", [0.3, 0.8])
def test_length_bias_planted_in_pandalm(pandalm, rate):
    draw, rows = random.Random(1), []
    for row in judged(pandalm):
        lengths = [len(str(row["response1"])), len(str(row["response2"]))]
        if lengths[0] != lengths[1]:
            longer = 1 + (lengths[1] > lengths[0])
            side = longer if draw.random() < rate else 3 - longer
            rows.append({**row, **{f"annotator{k}": side for k in (1, 2, 3)}})
    assert inside(max(rate, 1 - rate), prefero.inspect(rows)["length_bias"])


def test_near_identical_pairs_planted_in_pandalm(pandalm):
    rows = [row for row in judged(pandalm) if len(str(row["response1"]).split()) >= 15]
    rows = [
        {**row, "response2": f"{row['response1']} zzz"} if i % 5 == 0 else row for i, row in enumerate(rows)
    ]
    planted = sum(i % 5 == 0 for i in range(len(rows))) / len(rows)
    assert inside(planted, prefero.inspect(rows)["near_identical"])
