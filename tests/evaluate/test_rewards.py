"""A learned head, or a log-ratio, scores responses outside of training."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

import prefero
from prefero.data.examples import Example, Response
from prefero.errors import PreferoError
from prefero.evaluate.judges import judge_named, own_reward, rewards, values
from prefero.evaluate.win_rate import BothOrders
from prefero.objectives import log_ratio, method, primary
from prefero.objectives.among import BatchMean
from prefero.objectives.needs import materialise
from prefero.objectives.presets.preference_heads import preference_scores
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import text, tiny_model, tiny_tokenizer

SIZES = {"hidden": 16, "layer": 2}


def candidates(count: int = 5, responses: int = 3, roles: tuple[str | None, ...] = ()) -> list[Example]:
    numbers = random.Random(2)
    named = roles or (None,) * responses
    return [
        Example(text(numbers, 2, 6), tuple(Response(" " + text(numbers, 1, 7), role) for role in named))
        for _ in range(count)
    ]


def by_hand(model, tokenizer, example: Example) -> list[torch.Tensor]:
    """The last state of each response, with its end token."""
    states = []
    for response in example.responses:
        ids = [*tokenizer(example.prompt)["input_ids"], *tokenizer(response.content)["input_ids"], 0]
        states.append(model.model(torch.tensor([ids])).last_hidden_state[0, -1])
    return states


@pytest.mark.parametrize("tokens_per_row", [4096, 40])
def test_a_head_reads_the_state_at_the_end_token(tokens_per_row: int) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    objective = materialise(method("dph"), lambda name: SIZES)
    head = primary(objective).reward.module[0]
    examples = candidates()
    found = rewards(objective, model, examples, tokenizer, tokens_per_row=tokens_per_row)
    for example, own in zip(examples, found, strict=True):
        expected = [float(head(state)) for state in by_hand(model, tokenizer, example)]
        assert own.tolist() == pytest.approx(expected, abs=1e-5)
    assert model.training and objective.training, "left as they were"


def test_an_implicit_reward_needs_its_reference() -> None:
    model, reference, tokenizer = tiny_model(), tiny_model(1), tiny_tokenizer()
    with pytest.raises(PreferoError, match=r"reads reference.*models=\{'reference': …\}"):
        rewards(method("dpo"), model, candidates(), tokenizer)
    found = rewards(method("dpo", beta=0.5), model, candidates(), tokenizer, models={"reference": reference})
    ratio = values(log_ratio().sum(), model, candidates(), tokenizer, models={"reference": reference})
    for own, expected in zip(found, ratio, strict=True):
        torch.testing.assert_close(own, 0.5 * expected)
    assert any(weight.requires_grad for weight in reference.parameters()), "it is not frozen"


def test_examples_with_different_numbers_of_responses_keep_their_own() -> None:
    examples = [*candidates(2, 3), *candidates(2, 1), *candidates(1, 4)]
    objective = materialise(method("dph"), lambda name: SIZES)
    found = rewards(objective, tiny_model(), examples, tiny_tokenizer())
    assert [len(own) for own in found] == [3, 3, 1, 1, 4]


def test_embeddings_of_candidates_give_every_preference_score() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    objective = materialise(method("gpm", k=2), lambda name: SIZES)
    reward = primary(objective).reward.arguments[0]
    (vectors,) = values(reward.embedding, model, candidates(1), tokenizer)
    (scales,) = values(reward.scales, model, candidates(1), tokenizer)
    assert vectors.shape == (3, 4) and scales.shape == (3, 2)
    scores = preference_scores(vectors, scales[0])
    pair = [
        Example(
            one.prompt,
            (Response(one.responses[0].content, "chosen"), Response(one.responses[2].content, "rejected")),
        )
        for one in candidates(1)
    ]
    (of_pair,) = rewards(objective, model, pair, tokenizer)
    assert float((of_pair[0] - of_pair[1]) * 0.1) == pytest.approx(float(scores[0, 2]), abs=1e-5)


def test_an_objective_of_penalties_has_no_reward() -> None:
    with pytest.raises(PreferoError, match="nll compares no rewards of responses"):
        rewards(method("nll"), tiny_model(), candidates(), tiny_tokenizer())


def test_a_trained_head_finds_what_people_preferred(tmp_path: Path) -> None:
    """The better response ends in the word w."""
    numbers = random.Random(0)

    def content(good: bool) -> str:
        words = [word for word in text(numbers, 3, 5).split() if word != "w"] or ["a"]
        return " " + " ".join([*words, "w"] if good else [*words, "v"])

    def row() -> dict[str, str]:
        return {"prompt": text(numbers, 2, 4), "chosen": content(True), "rejected": content(False)}

    model = tiny_model()
    trainer = PreferenceTrainer(
        model,
        [row() for _ in range(120)],
        objective={"method": "dph", "policy_weight": 0.0},
        processing_class=tiny_tokenizer(),
        output_dir=str(tmp_path / "run"),
        learning_rate=0.01,
        examples_per_step=12,
        num_train_epochs=4,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    held_out = [
        Example(one["prompt"], (Response(one["chosen"]), Response(one["rejected"])))
        for one in (row() for _ in range(40))
    ]
    objective = prefero.load_objective(tmp_path / "model")
    found = torch.stack(rewards(objective, model, held_out, tiny_tokenizer()))
    assert float((found[:, 0] > found[:, 1]).float().mean()) > 0.9


def run_of(folder: Path, method: str, rows: list[dict[str, Any]], **training: Any) -> Path:
    """A run's folder, of a small model."""
    tiny_model().save_pretrained(folder / "start")
    tiny_tokenizer().save_pretrained(folder / "start")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": str(folder / "start"),
        "data": str(folder / "rows.jsonl"),
        "objective": method,
        "training": {"use_cpu": True, "save_strategy": "no", "disable_tqdm": True, **training},
        "samples": 0,
        "output": str(folder / "run"),
    }
    train(recipe)
    return folder / "run"


def test_a_run_of_a_general_preference_model_judges_and_a_cycle_stays_one(tmp_path: Path) -> None:
    """No score of each response could say that a beats b, b beats c and c beats a."""
    numbers, beats = random.Random(0), {"a": "b", "b": "c", "c": "a"}
    rows = [
        {"prompt": text(numbers, 2, 4), "chosen": f" d {won}", "rejected": f" d {lost}"}
        for _ in range(30)
        for won, lost in beats.items()
    ]
    run = run_of(tmp_path, "gpm", rows, learning_rate=0.003, examples_per_step=15, num_train_epochs=10)
    judge = judge_named(str(run))
    assert isinstance(judge, BothOrders)
    for won in beats:
        judged = [judge(*row.values()) for row in rows if row["chosen"] == f" d {won}"]
        assert fmean(preference > 0.5 for preference in judged) > 0.8
        assert judge("v w", f" d {won}", f" d {won}") == pytest.approx(0.5)


def test_a_run_with_a_head_judges_by_the_head_that_it_trained(tmp_path: Path) -> None:
    """Every one of the weights that it left, not one that is drawn again."""
    numbers = random.Random(0)
    rows = [{"prompt": text(numbers, 2, 4), "chosen": " a w", "rejected": " a v"} for _ in range(40)]
    run = run_of(tmp_path, "dph", rows, learning_rate=0.01, examples_per_step=8, num_train_epochs=4)
    prompts = [str(row["prompt"]) for row in rows]
    judge = judge_named(str(run))
    good, bad = judge(prompts, [" a w"] * 40), judge(prompts, [" a v"] * 40)
    assert all(first > second for first, second in zip(good, bad, strict=True))
    assert judge_named(str(run))(prompts, [" a w"] * 40) == good
    (run / "model" / "objective.json").unlink()
    with pytest.raises(PreferoError, match="holds no objective"):
        judge_named(str(run))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("dpop", "which response is chosen and which rejected"),
        ("modpo", "the column 'other_score'"),
        ("nll", "compares no rewards"),
    ],
)
def test_a_run_whose_reward_a_new_response_does_not_have_is_refused_by_name(
    key: str, reason: str, tmp_path: Path
) -> None:
    """Before any model is loaded: there is none here."""
    (tmp_path / "model").mkdir()
    config = {"objective": {"method": key}, "model": {"name": "no-such-model"}}
    (tmp_path / "run.json").write_text(json.dumps({"config": config}))
    with pytest.raises(PreferoError, match=f"{key} .*{reason}"):
        judge_named(str(tmp_path))


def test_a_score_does_not_depend_on_what_else_is_scored() -> None:
    """KTO's reward in training has a baseline over the batch, which would shift the scores of a call."""
    model, reference, tokenizer = tiny_model(), tiny_model(1), tiny_tokenizer()
    examples, models = candidates(4, 1), {"reference": reference}
    together = rewards(method("kto", beta=0.3), model, examples, tokenizer, models=models)
    for example, score in zip(examples, together, strict=True):
        (alone,) = rewards(method("kto", beta=0.3), model, [example], tokenizer, models=models)
        assert float(alone) == pytest.approx(float(score), abs=1e-5)
    by_dpo = rewards(method("dpo", beta=0.3), model, examples, tokenizer, models=models)
    assert [float(one) for one in together] == pytest.approx([float(one) for one in by_dpo], abs=1e-5)


def test_a_reward_that_reads_its_batch_otherwise_is_no_judge() -> None:
    reward = 0.1 * log_ratio().sum()
    with pytest.raises(PreferoError, match="the reward of mine depends on the other responses of its batch"):
        own_reward(reward / BatchMean(reward), "mine")
    assert own_reward(reward - BatchMean(reward), "mine") is reward
