"""A search finds what it may train, keeps its archive through a kill, and refuses what is insane."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefero.demo.reviews import REVIEWS
from prefero.demo.start import StartRecipe
from prefero.errors import PreferoError
from prefero.objectives import from_config, methods
from prefero_lab.discovery import (
    Archive,
    BanditFitness,
    Entry,
    Mutation,
    Proposal,
    Score,
    TextFitness,
    Unfit,
    confirm,
    discover,
    screened,
)
from prefero_lab.discovery.search import KNOWN

# Learns to end its texts, so that there are pairs; not to write reviews.
BRIEF = replace(REVIEWS, recipe=StartRecipe(hidden=32, heads=2, intermediate=64, steps=40, batch=16))
BANDIT = {"prompts": 16, "answers": 4, "pairs": 64, "steps": 20}


def loss(text: str, **arguments: Any) -> dict[str, Any]:
    return {"method": "expression", "loss": text, **arguments}


class Listed:
    """Proposes what stands in a list, one after the other."""

    origin = "list"

    def __init__(self, *objectives: Mapping[str, Any]) -> None:
        self.objectives = list(objectives)

    def __call__(self, entries: Sequence[Entry], numbers: random.Random) -> Proposal:
        return Proposal("listed", self.objectives.pop(0))


def test_a_search_on_a_bandit_scores_what_it_mutates_and_keeps_the_best(tmp_path: Path) -> None:
    fitness = BanditFitness(**BANDIT)
    archive = discover(tmp_path / "search", Mutation(), fitness, rounds=8, seed=1)
    assert len(archive) == 12
    assert [entry.number for entry in archive.entries] == list(range(12))
    scored = [entry for entry in archive.entries if entry.status == "scored"]
    assert len(scored) > 6
    assert all(math.isfinite(entry.fitness) and entry.measures["kl"] >= 0 for entry in scored)
    assert all(entry.reason for entry in archive.entries if entry.status == "rejected")
    best = archive.ranked()[0]
    logistic = archive.entries[0]
    assert best.fitness >= max(entry.fitness for entry in scored) >= logistic.fitness > 0
    assert from_config(best.objective).key == best.objective["method"]
    again = confirm(archive, fitness)
    assert again[0][0].number == best.number
    assert again[0][1].fitness != best.fitness, "measured on other pairs and prompts"


def test_a_search_on_a_language_model_gives_finite_scores(tmp_path: Path) -> None:
    fitness = TextFitness(
        tmp_path / "search", world=BRIEF, pairs=24, epochs=1, prompts=8, cache=tmp_path / "cache"
    )
    proposer = Listed({"method": "simpo"}, loss("softplus(-z)", plus={"nll": 0.1}))
    archive = discover(tmp_path / "search", proposer, fitness, rounds=2, known=KNOWN[:1])
    assert [entry.status for entry in archive.entries] == ["scored"] * 3
    assert all(math.isfinite(entry.fitness) for entry in archive.entries)
    assert {"interval", "gold_reward", "win_rate", "kl", "length"} <= set(archive.entries[0].measures)
    assert not (tmp_path / "search" / "run").exists(), "training runs leave nothing behind"


class Kill(Exception):
    pass


@pytest.mark.parametrize("at", [2, 7])
def test_a_killed_search_goes_on_to_the_archive_that_it_would_have_had(tmp_path: Path, at: int) -> None:
    def killed(entry: Entry, archive: Archive) -> None:
        if len(archive) == at:
            raise Kill

    fitness = BanditFitness(**BANDIT)
    whole = discover(tmp_path / "whole", Mutation(), fitness, rounds=4, seed=3)
    with pytest.raises(Kill):
        discover(tmp_path / "cut", Mutation(), fitness, rounds=4, seed=3, report=killed)
    file = tmp_path / "cut" / "archive.jsonl"
    with file.open("a") as lines:
        lines.write('{"number": 99, "origin": "mut')  # the kill came while a line was written
    resumed = discover(tmp_path / "cut", Mutation(), fitness, rounds=4, seed=3, resume=True)
    assert file.read_bytes() == whole.file.read_bytes()
    assert resumed.entries == whole.entries


def test_the_archive_is_json_lines_that_a_person_can_read(tmp_path: Path) -> None:
    archive = discover(tmp_path / "search", Mutation(), BanditFitness(**BANDIT), rounds=1)
    lines = archive.file.read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    assert first["objective"] == {"method": "expression", "loss": "softplus(-z)", "beta": 0.1}
    assert first["status"] == "scored"
    assert first["name"] == "logistic"
    assert Archive(archive.file).entries == archive.entries


def test_a_folder_with_another_search_is_left_alone(tmp_path: Path) -> None:
    output, fitness = tmp_path / "search", BanditFitness(**BANDIT)
    discover(output, Mutation(), fitness, rounds=0)
    with pytest.raises(PreferoError, match="continue it with --resume"):
        discover(output, Mutation(), fitness, rounds=1)
    with pytest.raises(PreferoError, match="other settings"):
        discover(output, Mutation(), BanditFitness(**{**BANDIT, "steps": 5}), rounds=1, resume=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(PreferoError, match="something other than a search"):
        discover(tmp_path / "notes", Mutation(), fitness, rounds=1)


INSANE = [
    (loss("z / (z - z)"), "the loss is (nan|inf)"),
    (loss("softplus(-z) + 0 * (chosen_ratio / chosen_ratio)"), "the loss is nan where training starts"),
    (loss("softplus(-z) + abs(z) ** 0.5"), "the gradient is not finite where training starts"),
    (loss("square(square(square(square(square(square(z))))))", beta=1.0), "10|1000"),
    (loss("softplus(z)"), "wrong sign"),
    (loss("square(z)"), "wrong sign"),
    (loss("beta + 1"), "does not depend on the policy"),
    (loss("softplus(-detach(z))"), "does not depend on the policy"),
    (loss("__import__('os')"), "no function is called"),
    (loss("softplus(-z)", beta=-1), "beta of expression lies in"),
    ({"method": "sofplus"}, "no method is called"),
    ({"loss": "softplus(-z)"}, "an objective is a method's name"),
    ({}, "an objective is a method's name"),
    ({"method": "kto"}, "trains on pairs"),
    ({"method": "nca"}, "trains on pairs"),
    ({"method": "tpo_triple"}, "this reads gold"),
]


@pytest.mark.parametrize(("objective", "reason"), INSANE, ids=lambda one: str(one)[:60])
def test_an_insane_proposal_is_rejected_with_its_reason(objective, reason: str, tmp_path: Path) -> None:
    archive = discover(tmp_path / "search", Listed(objective), BanditFitness(**BANDIT), rounds=1, known=())
    (entry,) = archive.entries
    assert (entry.status, entry.fitness) == ("rejected", None)
    assert re.search(reason, entry.reason), entry.reason


@pytest.mark.parametrize(
    "objective",
    [
        {"method": "dpo"},
        {"method": "ipo"},
        {"method": "exo_pref"},
        {"method": "discopop"},
        {"method": "aqfl"},
        {"method": "simpo"},
        {"method": "apo_zero"},
        {"method": "aot"},
        {"method": "odpo"},
        {"method": "beta_dpo"},
        {"method": "dpo", "weight": {"wpo": {}}, "plus": {"nll": 0.1}},
        loss("softplus(beta * rejected_ratio) - 0.01 * chosen_mean_logp"),
        loss("softplus(mean(z) - z) + 0.1 * std(z) + softplus(-z)"),
    ],
    ids=lambda one: one.get("loss", one["method"]),
)
def test_good_losses_pass_the_screen(objective: dict[str, Any]) -> None:
    assert screened(objective) is None


def test_what_was_tried_before_takes_no_training_again(tmp_path: Path) -> None:
    class Once(BanditFitness):
        calls = 0

        def __call__(self, objective: Mapping[str, Any], draw: int = 0) -> Score:
            Once.calls += 1
            return super().__call__(objective, draw)

    tried = (loss("softplus( -(z) )", beta=0.1), loss("softplus(-z)"), {"method": "expression"})
    archive = discover(tmp_path / "search", Listed(*tried), Once(**BANDIT), rounds=len(tried))
    assert [entry.reason for entry in archive.entries[4:]] == ["it is number 0 again"] * len(tried)
    assert Once.calls == 4


def test_training_that_diverges_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="signals"):
        BanditFitness(**BANDIT)({"method": "wpo"})
    archive = discover(
        tmp_path / "search", Listed({"method": "wpo"}), BanditFitness(**BANDIT), rounds=1, known=()
    )
    assert archive.entries[0].reason == "a bandit measures no signals of its policy"


def test_mutations_are_a_function_of_the_archive_and_the_numbers(tmp_path: Path) -> None:
    archive = discover(tmp_path / "search", Mutation(), BanditFitness(**BANDIT), rounds=6)
    first, second = (Mutation()(archive.entries, random.Random(7)) for _ in range(2))
    assert first == second
    made = [Mutation()(archive.entries, random.Random(number)) for number in range(60)]
    assert len({json.dumps(one.objective, sort_keys=True) for one in made}) > 25
    for one in made:
        from_config(one.objective)
        assert one.thought
        assert set(one.parents) <= {entry.number for entry in archive.entries}
    assert any(len(one.parents) == 2 for one in made), "some are blends of two"


def test_a_registered_method_is_mutated_in_its_numbers() -> None:
    entries = [Entry(0, "known", "ipo", {"method": "ipo"}, status="scored", fitness=1.0)]
    made = [Mutation()(entries, random.Random(number)).objective for number in range(20)]
    assert all(one["method"] == "ipo" for one in made)
    assert any("tau" in one for one in made)
    low = methods()["ipo"].parameters["tau"].range
    assert all(one.get("tau", 0.1) in low for one in made)


def test_a_damaged_archive_is_repaired_with_a_word_or_refused_with_the_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output, fitness = tmp_path / "search", BanditFitness(**BANDIT)
    file = discover(output, Mutation(), fitness, rounds=1).file
    content = file.read_bytes()
    *_, last = content.rstrip(b"\n").split(b"\n")

    for cut in (1, len(last) // 2, len(last)):  # the last line lacks its end, a half, or all but a character
        file.write_bytes(content[:-cut])
        caplog.clear()
        resumed = discover(output, Mutation(), fitness, rounds=1, resume=True)
        assert file.read_bytes() == content
        assert resumed.entries == Archive(file).entries
        assert "ends in the middle of a line, where the search was killed; 4 attempts kept" in caplog.text

    lines = content.split(b"\n")
    damages = {
        "is broken JSON": lines[1][:-9],
        "is not UTF-8 .byte 0xff": lines[1].replace(b"hinge", b"\xff"),
        "broken JSON: Expecting value": b"",
        "nested more than 100 deep": lines[1][:-1] + b', "more": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "more than 4,300 digits": lines[1].replace(b'"number": 1', b'"number": ' + b"9" * 5000),
        "has number 3, not 1": lines[3],
        "'number' stands twice": lines[1].replace(b"{", b'{"number": 0, ', 1),
        "half a character": lines[1].replace(b"hinge", rb"\ud800"),
        "fitness is nan": re.sub(rb'"fitness": [^,]*', b'"fitness": NaN', lines[1]),
        "is scored with fitness None": re.sub(rb'"fitness": [^,]*', b'"fitness": null', lines[1]),
        "objective is 5": re.sub(rb'"objective": {[^}]*}', b'"objective": 5', lines[1]),
        "has no key 'numbr'": lines[1].replace(b'"number"', b'"numbr"'),
    }
    for words, damaged in damages.items():
        file.write_bytes(b"\n".join([lines[0], damaged, *lines[2:]]))
        with pytest.raises(PreferoError, match=rf"archive\.jsonl, line 2.*{words}"):
            discover(output, Mutation(), fitness, rounds=2, resume=True)
    file.write_bytes(content)

    settings = output / "search.json"
    for damaged in (settings.read_bytes()[:-9], b"", b"[]", b"\xff", b"{" * 5000):
        settings.write_bytes(damaged)
        with pytest.raises(PreferoError, match=r"search\.json.*: the settings of the search are lost"):
            discover(output, Mutation(), fitness, rounds=2, resume=True)
    assert file.read_bytes() == content


def test_a_folder_takes_one_search_at_a_time(tmp_path: Path) -> None:
    output, fitness = tmp_path / "search", BanditFitness(**BANDIT)

    def another(entry: Entry, archive: Archive) -> None:
        program = "from prefero_lab.discovery import *; from pathlib import Path; import sys\n"
        program += "discover(Path(sys.argv[1]), Mutation(), BanditFitness(), rounds=1, resume=True)"
        done = subprocess.run([sys.executable, "-c", program, output], capture_output=True, text=True)
        assert "is in use: another run writes to it" in done.stderr

    discover(output, Mutation(), fitness, rounds=0, known=KNOWN[:1], report=another)
    assert sorted(entry.name for entry in output.iterdir()) == ["archive.jsonl", "search.json"]


def test_what_the_training_refuses_is_the_reason_of_a_rejection(tmp_path: Path) -> None:
    fitness = TextFitness(
        tmp_path / "search",
        world=BRIEF,
        pairs=24,
        epochs=1,
        prompts=8,
        learning_rate=1e9,
        cache=tmp_path / "cache",
    )
    steep = loss("1e6 * square(1e6 * square(z - 1))", beta=1000.0)
    with pytest.raises(Unfit, match=r"is (nan|inf)|not finite"):
        fitness(steep)
    with pytest.raises(Unfit, match="error_step"):
        fitness({"method": "step_dpo"})
