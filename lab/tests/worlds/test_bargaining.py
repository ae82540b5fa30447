from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from prefero.data.formats import load_examples
from prefero.demo.start import word_tokenizer
from prefero.demo.text import stream
from prefero_lab.papers.experiments.turns import Made, TurnsExperiment
from prefero_lab.worlds.bargaining import (
    BARGAINING,
    DECISIVE,
    KINDS,
    NOTHING,
    Session,
    acted,
    any_turn,
    noisy,
    play,
    prompts,
    repaired,
    segment_row,
    step_row,
    vocabulary,
)

PROMPT = "gruff seller, lamp for 7:"
REST = "seller agrees. talk rain. seller laughs. talk music. seller shrugs. part soon. seller waves."
DEAL = f"greet plainly. seller smiles. praise shade. seller nods. offer 5. seller 5. accept 5. {REST}"


@pytest.mark.parametrize(
    ("old", "new", "right", "score"),
    [
        ("", "", (True, True, True, True), 1.0),
        ("plainly", "warmly", (False, True, True, True), 0.25),
        ("shade", "seat", (True, False, True, True), 0.25),
        ("offer 5", "offer 4", (True, True, False, True), 0.5),
        ("accept 5", "refuse 5", (True, True, True, False), 0.5),
        ("seller 5. accept 5", "seller 6. refuse 6", (True, True, True, True), 1.0),
        ("seller 5. accept 5", "seller 6. accept 6", (True, True, True, False), 0.5),
    ],
)
def test_sessions_judged_by_hand(old: str, new: str, right: tuple[bool, ...], score: float) -> None:
    session = Session.read(PROMPT, DEAL.replace(old, new) if old else DEAL)
    assert (session.right, session.score) == (right, score)
    assert session.text == (DEAL.replace(old, new) if old else DEAL)


def test_the_seller_gives_way_to_who_greets_praises_and_offers_well() -> None:
    def price(*said: str) -> str:
        session = Session(PROMPT)
        for one in said:
            session = session.after(one, random.Random(0))
        return session.heard[-1]

    assert price("greet plainly.", "praise shade.", "offer 5.") == "seller 5."
    assert price("greet plainly.", "praise shade.", "offer 6.") == "seller 6."
    assert price("greet warmly.", "praise shade.", "offer 5.") == "seller 6."
    assert price("greet warmly.", "praise seat.", "offer 5.") == "seller 7."
    assert price("greet plainly.", "praise shade.", "offer 4.") == "seller 7."  # too little
    assert price("greet plainly.", "praise shade.", NOTHING) == "seller 7."


def test_only_who_is_always_right_always_succeeds_and_small_talk_decides_nothing() -> None:
    rng, asked = random.Random(0), prompts(held_out=False)
    assert all(acted(prompt, rng, 1.0).success for prompt in asked)
    rate = fmean(acted(rng.choice(asked), rng, 0.75).success for _ in range(2000))
    assert 0.3 < rate < 0.45
    assert noisy(Session.read(PROMPT, DEAL), DECISIVE, 1.0, rng).success


def test_noise_begins_where_it_is_said_to() -> None:
    session, rng = Session.read(PROMPT, DEAL), random.Random(1)
    spoilt = [noisy(session, 2, 1.0, rng) for _ in range(50)]
    assert {one.said[:2] for one in spoilt} == {session.said[:2]} and len({one.said[2] for one in spoilt}) > 4
    assert {one.heard for one in spoilt} == {session.heard}


def test_the_marked_turns_are_the_buyers() -> None:
    better, worse = Session.read(PROMPT, DEAL), Session.read(PROMPT, DEAL.replace("shade", "seat"))
    row = segment_row(better, worse, range(1, DECISIVE))
    said = [row["rejected"][span["start"] : span["end"]] for span in row["rejected_spans"]]
    assert said == ["praise seat.", "offer 5.", "accept 5."]
    assert [span["segment"] for span in row["chosen_spans"]] == [1, 2, 3]
    whole = step_row(better, worse)["chosen_spans"]
    assert [span["step"] for span in whole if "step" in span] == list(range(1, len(KINDS) + 1))
    assert load_examples([row])[0].responses[0].spans


def test_a_turn_is_three_tokens_and_comes_back() -> None:
    tokenizer = word_tokenizer(vocabulary(), 64)
    rng = random.Random(2)
    for turn in range(len(KINDS)):
        said = any_turn(turn, rng)
        assert len(tokenizer(said, add_special_tokens=False).input_ids) == 3
    for prompt, text in BARGAINING.corpus(50, 0):
        for one in (prompt, text):
            ids = tokenizer(one, add_special_tokens=False).input_ids
            assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
        assert Session.read(prompt, text).text == text


def test_sides_of_the_split_share_no_prompt_and_all_words() -> None:
    train, held_out = (prompts(held_out=held_out) for held_out in (False, True))
    assert len(train) == 168 and len(held_out) == 56 and not set(train) & set(held_out)
    assert {text.split()[0] for text in held_out} == {text.split()[0] for text in train}
    assert {text.split()[2] for text in held_out} == {text.split()[2] for text in train}


def test_sessions_are_played_to_their_end_from_where_they_were(tmp_path: Path) -> None:
    recipe = replace(
        BARGAINING.recipe, hidden=16, layers=1, heads=2, intermediate=32, steps=3, batch=4, examples=40
    )
    start = replace(BARGAINING, name="bargaining-small", recipe=recipe).start_model(tmp_path)
    begun = [Session.read(PROMPT, DEAL).before(turn) for turn in range(len(KINDS) + 1)]
    played, again = (play(start.model, start.tokenizer, begun, stream("test", 0)) for _ in range(2))
    assert played == again
    for turn, session in enumerate(played):
        assert len(session.said) == len(KINDS) and session.before(turn) == begun[turn]


class Known(TurnsExperiment):
    """With sessions that are given."""

    def known(self) -> Made:
        better, worse = Session.read(PROMPT, DEAL), Session.read(PROMPT, DEAL.replace("shade", "seat"))
        nothing: object = None
        return Made(nothing, [(better, worse, 1)], [(better, worse, 1)])  # type: ignore[arg-type]


def test_turn_segment_and_session_are_marks_on_the_same_pairs() -> None:
    experiment = Known()
    rows = {kind: experiment.data(experiment.known(), kind)[0] for kind in ("turn", "segment", "session")}  # type: ignore[arg-type]
    assert {kind: len(row["chosen_spans"]) for kind, row in rows.items()} == {
        "turn": 1,
        "segment": 3,
        "session": 7,
    }
    assert len({(row["chosen"], row["rejected"]) for row in rows.values()}) == 1
    assert [span["start"] for span in rows["turn"]["chosen_spans"]] == [DEAL.index("praise")]


@pytest.mark.slow
def test_the_start_buys_a_third_of_the_time_and_better_ways_on_are_found() -> None:
    experiment = TurnsExperiment()
    made = experiment.make(0)
    found = experiment.measure(made, made.start.model, 0)
    assert 0.25 < fmean(found["success"]) < 0.45
    assert all(better.score > worse.score for better, worse, _ in made.repaired)
    assert all(better.before(turn) == worse.before(turn) for better, worse, turn in made.repaired)
    assert len(made.repaired) > 200 and repaired(made.start, 400, 0)[:5] == made.repaired[:5]
