"""Arguments that :class:`transformers.Trainer` has: those that work here, and those that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, TrainingArguments

from prefero.errors import PreferoError
from prefero.models.loading import ModelSource
from prefero.training.config import PreferenceArguments
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, saved_model, tiny_model, tiny_tokenizer

Trainer = Callable[..., PreferenceTrainer]


def moved(trainer: PreferenceTrainer) -> bool:
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    return any(not torch.equal(before[name], weight) for name, weight in trainer.model.named_parameters())


def test_compute_metrics_gets_every_response_and_joins_the_metrics(trainer: Trainer) -> None:
    given: list[EvalPrediction] = []

    def measure(prediction: EvalPrediction) -> dict[str, float]:
        given.append(prediction)
        rewards, lengths = prediction.predictions["reward"], prediction.predictions["length"]
        margin = rewards["chosen"] - rewards["rejected"]
        return {"median_margin": float(np.median(margin)), "eval_longest": float(lengths["chosen"].max())}

    held_out = pairs(7)
    run = trainer(eval_dataset=held_out, compute_metrics=measure, eval_strategy="steps", eval_steps=2)
    run.train()
    (prediction, *_) = given
    assert prediction.label_ids is None
    assert prediction.predictions.keys() == {"reward", "logps", "length"}
    for arrays in prediction.predictions.values():
        assert {role: array.shape for role, array in arrays.items()} == {"chosen": (7,), "rejected": (7,)}
    logged = [line for line in run.state.log_history if "eval_loss" in line]
    assert len(logged) == len(given) == 2
    metrics = run.evaluate()
    rewards = given[-1].predictions["reward"]
    assert metrics["eval_rewards/margins"] == pytest.approx(np.mean(rewards["chosen"] - rewards["rejected"]))
    assert metrics["eval_median_margin"] == pytest.approx(np.median(rewards["chosen"] - rewards["rejected"]))
    assert metrics["eval_longest"] == given[-1].predictions["length"]["chosen"].max()
    lines = [json.loads(line) for line in Path(run.args.output_dir, "metrics.jsonl").read_text().splitlines()]
    assert "eval/median_margin" in lines[-1]


def test_a_response_that_an_example_does_not_have_is_nan(trainer: Trainer) -> None:
    given: list[EvalPrediction] = []
    rows = [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": number % 2 == 0}
        for number, row in enumerate(pairs(6))
    ]
    run = trainer(
        data=rows, objective="kto", eval_dataset=rows, compute_metrics=lambda one: given.append(one) or {}
    )
    run.evaluate()
    rewards = given[0].predictions["reward"]
    assert np.isnan(rewards["desirable"]).tolist() == [False, True] * 3
    assert np.isnan(rewards["undesirable"]).tolist() == [True, False] * 3


def test_the_best_model_may_be_that_of_a_metric_of_ones_own(trainer: Trainer) -> None:
    scores = iter([0.1, 0.9, 0.2, 0.3])
    run = trainer(
        eval_dataset=pairs(4),
        compute_metrics=lambda _: {"own": next(scores)},
        metric_for_best_model="own",
        load_best_model_at_end=True,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
    )
    run.train()
    assert run.state.best_model_checkpoint is not None
    assert run.state.best_model_checkpoint.endswith("checkpoint-2")


def test_an_optimizer_and_its_schedule_are_used(trainer: Trainer) -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    run = trainer(model, optimizers=(optimizer, schedule))
    assert moved(run)
    rates = [line["learning_rate"] for line in run.state.log_history if "loss" in line]
    assert rates == pytest.approx([0.05 * 0.5**step for step in range(len(rates))])
    same = trainer(learning_rate=0.05)
    same.create_optimizer()
    plain = trainer(model := tiny_model(), optimizers=(torch.optim.SGD(model.parameters(), lr=0.05), None))
    same.train(), plain.train()
    for one, other in zip(same.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other), "an optimizer that is given trains as the same one by name does"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "oreo", "reference": "frozen"}, "the objective has weights of its own"),
        ({"objective": "ofs_dpo"}, "models.slow is trained"),
    ],
)
def test_an_optimizer_that_lacks_what_is_trained_is_refused(
    trainer: Trainer, options: dict[str, Any], message: str
) -> None:
    model = tiny_model()
    data = [{**row, "chosen_score": 1.0, "rejected_score": 0.0} for row in pairs(6)]
    with pytest.raises(PreferoError, match=message):
        trainer(model, data=data, optimizers=(torch.optim.SGD(model.parameters(), lr=0.1), None), **options)
    other = torch.optim.SGD(tiny_model(seed=3).parameters(), lr=0.1)
    with pytest.raises(PreferoError, match="holds no weight that is trained"):
        trainer(model, optimizers=(other, None))


def test_a_function_makes_the_model_after_the_seed_is_set(tmp_path: Path, trainer: Trainer) -> None:
    calls = []

    def make() -> torch.nn.Module:
        calls.append(torch.rand(1).item())
        return tiny_model()

    settings: dict[str, Any] = {"processing_class": trainer().prepared.kind.processor, "use_cpu": True}
    for number in range(2):
        run = PreferenceTrainer(
            train_dataset=pairs(8),
            model_init=make,
            output_dir=str(tmp_path / str(number)),
            examples_per_step=4,
            learning_rate=0.1,
            warmup_steps=0,
            disable_tqdm=True,
            **settings,
        )
        assert moved(run)
    assert len(calls) == 2 and calls[0] == calls[1]
    with pytest.raises(PreferoError, match="either model or model_init"):
        PreferenceTrainer(tiny_model(), pairs(4), model_init=make, output_dir="x")
    with pytest.raises(PreferoError, match="either model or model_init"):
        PreferenceTrainer(train_dataset=pairs(4), output_dir="x")


@pytest.mark.parametrize("name", ["data_collator", "preprocess_logits_for_metrics", "compute_loss_func"])
def test_what_cannot_be_given_is_refused_with_the_reason(trainer: Trainer, name: str) -> None:
    with pytest.raises(PreferoError, match=f"{name} cannot be set: .*(packs|logits|objective)"):
        trainer(**{name: print})
    trainer(**{name: None})


def test_a_source_says_how_the_model_is_loaded_and_trained(tmp_path: Path) -> None:
    source = ModelSource(saved_model(tmp_path / "model"), lora={"r": 2})
    run = PreferenceTrainer(
        source, pairs(6), reference={"kind": "frozen"}, output_dir=str(tmp_path / "run"), use_cpu=True
    )
    trained = [name for name, weight in run.model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    with pytest.raises(PreferoError, match="ModelSource has no key 'dtpe'; did you mean 'dtype'"):
        ModelSource("model", dtpe="float32")  # type: ignore[call-arg]
    with pytest.raises(PreferoError, match=r"lora\.r is 0: input should be greater"):
        ModelSource("model", lora={"r": 0})


class TestPublishedSettings:
    """``objective: {method: …, settings: NAME}``."""

    @pytest.fixture
    def recipe(self, tmp_path: Path) -> dict[str, Any]:
        data = tmp_path / "pairs.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in pairs(6)))
        return {
            "model": saved_model(tmp_path / "model"),
            "data": str(data),
            "output": str(tmp_path / "run"),
            "training": {"max_steps": 1, "save_strategy": "no", "use_cpu": True},
            "samples": 0,
        }

    def test_arguments_and_learning_rate_are_those_published(
        self, recipe: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        objective = {"method": "simpo", "settings": "mistral-7b-base"}
        run = json.loads((train({**recipe, "objective": objective}) / "run.json").read_text())
        assert run["method"]["arguments"]["beta"] == 2.0 and run["method"]["arguments"]["gamma"] == 1.6
        assert run["config"]["objective"] == objective
        assert run["learning_rate"] == 3e-7
        assert "learning_rate is 3e-07, as published" in caplog.text

    def test_what_the_recipe_gives_wins(
        self, recipe: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        objective = {"method": "simpo", "settings": "mistral-7b-base", "gamma": 0.5}
        training = {**recipe["training"], "learning_rate": 1e-3}
        folder = train({**recipe, "objective": objective, "training": training})
        run = json.loads((folder / "run.json").read_text())
        assert run["method"]["arguments"]["beta"] == 2.0 and run["method"]["arguments"]["gamma"] == 0.5
        assert run["learning_rate"] == 1e-3 and "published" not in caplog.text

    @pytest.mark.parametrize(
        ("objective", "message"),
        [
            ({"method": "simpo", "settings": "mistral-7b"}, "did you mean 'mistral-7b-base'.*it has .*gemma"),
            ({"method": "ipo", "settings": "default"}, "ipo has no published settings for 'default'.*none"),
        ],
    )
    def test_an_unknown_name_is_told_with_those_there_are(
        self, recipe: dict[str, Any], objective: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(PreferoError, match=message):
            train({**recipe, "objective": objective})


def test_arguments_that_are_given_stay_as_they_are(tmp_path: Path) -> None:
    args = PreferenceArguments(output_dir=str(tmp_path / "first"), max_steps=1, use_cpu=True)
    first = PreferenceTrainer(tiny_model(), pairs(4), args=args, processing_class=tiny_tokenizer())
    assert first.args.learning_rate == 5e-7
    assert args.learning_rate is None
    published = {"method": "simpo", "settings": "llama-3-8b-instruct"}
    second = PreferenceTrainer(
        tiny_model(), pairs(4), objective=published, args=args, processing_class=tiny_tokenizer()
    )
    assert second.args.learning_rate == 1e-6


def test_arguments_of_transformers_are_refused(tmp_path: Path) -> None:
    args: Any = TrainingArguments(output_dir=str(tmp_path))
    with pytest.raises(PreferoError, match=r"args is TrainingArguments: give prefero\.PreferenceArguments"):
        PreferenceTrainer(tiny_model(), pairs(4), args=args, processing_class=tiny_tokenizer())


def test_a_tracker_that_is_not_installed_is_refused_in_one_line(trainer: Trainer) -> None:
    with pytest.raises(PreferoError, match=r"cannot be made with report_to=.*: nonsense is not supported"):
        trainer(report_to="nonsense")
    with pytest.raises(PreferoError, match=r"report_to=\['comet_ml'\]: comet_ml is not installed"):
        trainer(report_to="comet_ml", data="/no/such/rows.jsonl")
