"""A start model that is taught what a word asks for, and the pairs behind that word."""

from __future__ import annotations

import torch

from prefero_lab.papers.experiments.refined import ASK, Refined, RefinedExperiment
from tests.demo.small import WRITING


class Small(RefinedExperiment):
    text_world = WRITING


def test_pairs_stand_behind_the_word_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    sizes = {"pairs": 96, "epochs": 1.0, "examples_per_step": 8, "prompts": 4, "held_out_pairs": 16}
    experiment = Small(**sizes, taught=3)
    made, again = experiment.make(0), experiment.make(0)
    assert isinstance(made, Refined) and torch.equal(made.before, again.before)
    assert all(row["prompt_refined"] == f"{ASK} {row['prompt']}" for row in made.rows)
    for (plain, _), (asked, _) in zip(made.pairs, made.asked, strict=True):
        assert len(asked.context) == len(plain.context) + 1
        assert asked.response.tolist() == plain.response.tolist()
    taught = made.start.model.state_dict()
    old = experiment.text_world.start_model(seed=0).model.state_dict()
    assert any(not torch.equal(taught[name], old[name]) for name in old)

    start = experiment.measure(made, experiment.start(made), 0)
    assert start["asked_correlation"] == [0.0] and len(start["asked_gold"]) == 4
    settings = {"objective": {"method": "sr_dpo"}, "learning_rate": 1e-2}
    numbers = experiment.measure(made, experiment.train(made, settings, 0).model, 0)
    assert numbers == experiment.measure(again, experiment.train(again, settings, 0).model, 0)
    assert numbers["asked_correlation"] != [0.0] and numbers["kl"][0] > start["kl"][0]
    assert all(torch.equal(taught[name], weight) for name, weight in made.start.model.state_dict().items())
