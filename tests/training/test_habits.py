"""What somebody who knows TRL does by habit does what ``docs/trl.md`` says: a test for each line."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from huggingface_hub import RepoUrl
from peft import LoraConfig, PeftModel
from transformers import EarlyStoppingCallback, HfArgumentParser, TrainerCallback
from transformers.trainer_utils import BestRun

import prefero
from docs.habits import HABITS
from prefero import PreferenceArguments, PreferenceTrainer, PreferoError
from prefero.evaluate import rewards
from prefero.report.page import render
from prefero.training.run_folder import need_model
from tests.forks import ROOT
from tests.training.tiny import pairs, saved_model, tiny_model, tiny_tokenizer

Trainer = Callable[..., PreferenceTrainer]

CHAT = (
    "{% for message in messages %}{{ message.role[0] + ' ' + message.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a ' }}{% endif %}"
)


def test_every_habit_has_its_test() -> None:
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(HABITS) <= tests


def last_line(run: PreferenceTrainer) -> dict[str, Any]:
    return json.loads(Path(run.args.output_dir, "metrics.jsonl").read_text().splitlines()[-1])


def changed(run: PreferenceTrainer) -> bool:
    before = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    run.train()
    return any(not torch.equal(before[name], weight) for name, weight in run.model.named_parameters())


def tokens(run: PreferenceTrainer) -> list[list[int]]:
    assert run.prepared.train is not None
    item: Any = run.prepared.train[0]
    return [[*cell.context.tolist(), *cell.response.tolist()] for cell in item.cells]


# Rows


def test_rows(trainer: Trainer) -> None:
    one = {"prompt": "a b", "chosen": " c", "rejected": " d e"}
    whole = {"chosen": "a b c", "rejected": "a b d e"}
    assert tokens(trainer(data=[one] * 4)) == tokens(trainer(data=[whole] * 4))
    turn = {"role": "user", "content": "a b"}
    sides = {
        name: [turn, {"role": "assistant", "content": text}]
        for name, text in (("chosen", "c"), ("rejected", "d"))
    }
    apart = {"prompt": [turn], **{name: side[1:] for name, side in sides.items()}}
    assert tokens(trainer(data=[sides] * 4)) == tokens(trainer(data=[apart] * 4))
    labelled = [{"prompt": "a b", "completion": " c", "label": label} for label in (True, False)]
    assert changed(trainer(data=labelled * 4, objective="kto", max_steps=1))


def test_plain_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    row = {"prompt": "b c", "chosen": " d", "rejected": " e"}
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "b c"}], add_generation_prompt=True)
    given: dict[str, Any] = {"processing_class": tokenizer, "use_cpu": True}
    chosen, _ = tokens(PreferenceTrainer(tiny_model(), [row] * 4, output_dir=str(tmp_path / "a"), **given))
    assert chosen[: len(asked["input_ids"])] == asked["input_ids"]
    given |= {"template": "none", "output_dir": str(tmp_path / "b")}
    chosen, _ = tokens(PreferenceTrainer(tiny_model(), [row] * 4, **given))
    assert chosen == [*tokenizer("b c d")["input_ids"], tokenizer.eos_token_id]


def test_unused_columns(trainer: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    row = {"question": "a b", "chosen": " c", "rejected": " d"}
    with caplog.at_level(logging.WARNING):
        trainer(data=[row | {"mood": f"mood {number}"} for number in range(4)])
    assert "mood" in caplog.text and "question" in caplog.text


def test_streaming(trainer: Trainer) -> None:
    table = datasets.Dataset.from_list(pairs(8))
    assert tokens(trainer(data=table.to_iterable_dataset())) == tokens(trainer(data=table))


def test_long_rows(trainer: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    row = {"prompt": "a b c d e", "chosen": " f g h i j k", "rejected": " l m"}
    with caplog.at_level(logging.WARNING):
        chosen, rejected = tokens(trainer(data=[row] * 4, max_length=8))
    assert len(chosen) == 8 and chosen[:5] == rejected[:5] and "8" in caplog.text
    with pytest.raises(PreferoError, match="max_length"):
        trainer(data=[row] * 4, max_length=8, too_long="error")
    long = {"prompt": "a " * 80, "chosen": "b", "rejected": "c"}
    assert len(tokens(trainer(data=[row, long]))[0]) == 12  # 64 positions


# Models


def test_model_by_name(tmp_path: Path) -> None:
    name = saved_model(tmp_path / "model")
    settings: dict[str, Any] = {"use_cpu": True, "disable_tqdm": True, "max_steps": 1}
    found = PreferenceTrainer(name, pairs(8), output_dir=str(tmp_path / "a"), **settings)
    given = PreferenceTrainer(
        tiny_model(),
        pairs(8),
        processing_class=tiny_tokenizer(),
        output_dir=str(tmp_path / "b"),
        **settings,
    )
    assert tokens(found) == tokens(given)
    with pytest.raises(PreferoError, match="no setting is called tokenizer: it is processing_class"):
        PreferenceTrainer(name, pairs(8), tokenizer=tiny_tokenizer(), output_dir=str(tmp_path / "c"))


def test_reference_model(trainer: Trainer, tmp_path: Path) -> None:
    other = saved_model(tmp_path / "other", seed=3)
    loaded, named = (trainer(reference=which, max_steps=1) for which in (tiny_model(seed=3), other))
    assert (
        loaded.train().training_loss
        == named.train().training_loss
        != trainer(max_steps=1).train().training_loss
    )
    model = tiny_model()
    with pytest.raises(
        PreferoError, match="reference is the model that is trained, and would change with it"
    ):
        trainer(model, reference=model)
    with pytest.raises(PreferoError, match="no setting is called ref_model: it is reference"):
        trainer(ref_model=tiny_model())
    with pytest.raises(PreferoError, match="second argument is the training data, and is a model"):
        PreferenceTrainer(model, tiny_model(), output_dir=str(tmp_path / "run"))


def test_no_reference_model(trainer: Trainer, own_cache: Path) -> None:
    assert list(trainer(max_steps=1).references.cached) == ["reference"]
    first = trainer(max_steps=1)
    first.train()
    there = set(own_cache.rglob("*.safetensors"))
    trainer(max_steps=1, objective="ipo").train()
    assert there and set(own_cache.rglob("*.safetensors")) == there
    assert not first.references.providers or all(
        not isinstance(one.model, torch.nn.Module) for one in first.references.providers.values()
    )


def test_peft(trainer: Trainer) -> None:
    run = trainer(
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"), max_steps=2
    )
    base = {name: one.clone() for name, one in run.model.named_parameters() if not one.requires_grad}
    assert isinstance(run.model, PeftModel) and changed(run)
    assert all(torch.equal(value, dict(run.model.named_parameters())[name]) for name, value in base.items())
    assert run.state.log_history[0]["loss"] == pytest.approx(0.6931, abs=1e-4)


def test_dropout(trainer: Trainer) -> None:
    model = tiny_model()
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    first = trainer(model, max_steps=1, learning_rate=1e-9).train().training_loss
    assert first == pytest.approx(0.6931, abs=1e-4)
    kept = trainer(model, max_steps=1, dropout=True)
    assert kept.args.dropout


def test_model_init(trainer: Trainer, tmp_path: Path) -> None:
    run = PreferenceTrainer(
        train_dataset=pairs(8),
        model_init=tiny_model,
        processing_class=tiny_tokenizer(),
        output_dir=str(tmp_path / "run"),
        use_cpu=True,
    )
    assert torch.equal(run.model.lm_head.weight, tiny_model().lm_head.weight)


# Arguments


def test_arguments(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    given = {"output_dir": str(tmp_path / "run"), "use_cpu": True, "learning_rate": 3e-6}
    theirs = trl.DPOConfig(**given, bf16=False)
    with pytest.raises(PreferoError, match=r"args is DPOConfig: give prefero\.PreferenceArguments"):
        PreferenceTrainer(tiny_model(), pairs(8), args=theirs, processing_class=tiny_tokenizer())
    whole = PreferenceTrainer(
        tiny_model(), pairs(8), args=PreferenceArguments(**given), processing_class=tiny_tokenizer()
    )
    single = PreferenceTrainer(tiny_model(), pairs(8), processing_class=tiny_tokenizer(), **given)
    assert whole.args.learning_rate == single.args.learning_rate == 3e-6


def test_beta(trainer: Trainer) -> None:
    for name in ("beta", "loss_type"):
        with pytest.raises(PreferoError, match=f"no setting is called {name}: it is objective"):
            trainer(**{name: 0.1})
    assert trainer(objective={"method": "dpo", "beta": 0.3}).objective.arguments["beta"] == 0.3


def test_batch_size(trainer: Trainer) -> None:
    with pytest.raises(PreferoError, match="per_device_train_batch_size is examples_per_step here"):
        trainer(per_device_train_batch_size=4)
    with pytest.raises(PreferoError, match="gradient_accumulation_steps is examples_per_step here"):
        trainer(gradient_accumulation_steps=4)
    few, many = (trainer(examples_per_step=6, tokens_per_row=size, max_steps=2) for size in (30, 400))
    assert few.plan is not None and many.plan is not None
    assert few.plan.micro_batches > many.plan.micro_batches == 1
    assert few.train().training_loss == pytest.approx(many.train().training_loss, rel=1e-5)
    assert PreferenceArguments(output_dir="x").examples_per_step == 32


def test_defaults(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    theirs = trl.DPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    assert (theirs.num_train_epochs, theirs.learning_rate, theirs.warmup_steps) == (3, 1e-6, 0)
    assert theirs.lr_scheduler_type == "linear" and theirs.gradient_checkpointing
    assert (theirs.max_length, theirs.disable_dropout) == (1024, True)
    made = {"output_dir": str(tmp_path / "a"), "processing_class": tiny_tokenizer(), "use_cpu": True}
    ours = PreferenceTrainer(tiny_model(), pairs(4), **made).args
    assert (ours.num_train_epochs, ours.learning_rate, ours.warmup_steps) == (1, 5e-7, 0.1)
    assert ours.lr_scheduler_type == "cosine" and not ours.activation_checkpointing
    adapters = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    assert PreferenceTrainer(tiny_model(), pairs(4), peft_config=adapters, **made).args.learning_rate == 1e-5


def test_precision(trainer: Trainer) -> None:
    with pytest.raises(PreferoError, match="bf16 is precision=bfloat16 here"):
        trainer(bf16=True)
    run = trainer(precision="bfloat16", max_steps=1)
    assert run.args.bf16 and run.model.dtype == torch.float32


def test_activation_checkpointing(trainer: Trainer) -> None:
    with pytest.raises(PreferoError, match="gradient_checkpointing is activation_checkpointing here"):
        trainer(gradient_checkpointing=True)
    plain, saving = (trainer(activation_checkpointing=on, max_steps=2) for on in (False, True))
    assert saving.train().training_loss == pytest.approx(plain.train().training_loss, rel=1e-6)


def test_command_line() -> None:
    (read,) = HfArgumentParser(PreferenceArguments).parse_args_into_dataclasses(
        ["--output_dir", "x", "--learning_rate", "1e-6", "--examples_per_step", "8"]
    )
    assert (read.learning_rate, read.examples_per_step) == (1e-6, 8)


# Training


def test_one_step(trainer: Trainer) -> None:
    assert changed(trainer(max_steps=1, warmup_steps=0.1, lr_scheduler_type="cosine"))


def test_metrics(trainer: Trainer) -> None:
    run = trainer(max_steps=1, eval_dataset=pairs(4, 1))
    run.train()
    names = {f"{kind}/{side}" for kind in ("rewards", "logps") for side in ("chosen", "rejected")}
    names |= {"rewards/accuracies", "rewards/margins"}
    assert names <= run.state.log_history[0].keys() and names <= last_line(run).keys()
    assert {f"eval_{name}" for name in names} <= run.evaluate().keys()


def test_ties(trainer: Trainer) -> None:
    run = trainer(max_steps=1)
    run.train()
    assert run.state.log_history[0]["rewards/accuracies"] == 0.5


def test_throughput(trainer: Trainer) -> None:
    run = trainer(max_steps=2, tokens_per_row=30)
    told = run.train().metrics
    assert run.plan is not None and run.plan.micro_batches > 1
    assert told["train_samples_per_second"] * told["train_runtime"] == pytest.approx(12, rel=0.05)
    assert last_line(run)["tokens_per_second"] > 0


def test_trackers(trainer: Trainer) -> None:
    with pytest.raises(PreferoError, match="comet_ml is not installed"):
        trainer(report_to="comet_ml", data="/no/such/rows.jsonl")


def test_held_out_sets(trainer: Trainer) -> None:
    assert "eval_loss" in trainer(eval_dataset=pairs(4, 1)).evaluate()
    told = trainer(eval_dataset={"near": pairs(4, 1), "far": pairs(4, 2)}).evaluate()
    assert {"eval_near_loss", "eval_far_loss"} <= told.keys()


def test_compute_metrics(trainer: Trainer) -> None:
    given: list[Any] = []

    def measure(prediction: Any) -> dict[str, float]:
        given.append(prediction.predictions)
        return {"mine": 1.0}

    assert trainer(eval_dataset=pairs(4, 1), compute_metrics=measure).evaluate()["eval_mine"] == 1
    assert given[0].keys() == {"reward", "logps", "length"}


def test_predict(trainer: Trainer) -> None:
    run = trainer(eval_dataset=pairs(4, 1), max_steps=1)
    with pytest.raises(PreferoError, match=r"evaluate_examples\(\) .* prefero\.evaluate\.rewards"):
        run.predict(pairs(4))
    run.train()
    assert len(run.evaluate_examples().values["rewards/margins"]) == 4
    examples = prefero.load_examples(pairs(4, 1))
    scored = rewards(
        run.objective, run.model, list(examples), tiny_tokenizer(), models={"reference": tiny_model()}
    )
    assert [len(one) for one in scored] == [2] * 4


def test_callbacks(trainer: Trainer) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = True

    run = trainer(callbacks=[Stop()])
    run.train()
    assert run.state.global_step == 1


def test_best_model(trainer: Trainer, tmp_path: Path) -> None:
    run = trainer(
        eval_dataset=[{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs(24)],
        max_steps=6,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    run.train()
    losses = {one["step"]: one["eval_loss"] for one in run.state.log_history if "eval_loss" in one}
    best = min(losses, key=losses.__getitem__)
    assert run.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-6) and (best, max(losses)) == (
        1,
        3,
    )
    run.save_model(str(tmp_path / "saved"))
    assert f"step {best}" in (tmp_path / "saved/README.md").read_text()


def test_resume(trainer: Trainer, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    settings: dict[str, Any] = {"output_dir": folder, "save_strategy": "steps", "save_steps": 2}
    trainer(**settings, max_steps=2).train("auto")
    trainer(**settings, max_steps=4).train(resume_from_checkpoint=True)
    resumed = [json.loads(line)["loss"] for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    whole = trainer(max_steps=4)
    whole.train()
    assert resumed == [one["loss"] for one in whole.state.log_history if "loss" in one]
    with pytest.raises(PreferoError, match="cannot be resumed"):
        trainer(**settings, max_steps=6, examples_per_step=4).train(resume_from_checkpoint=True)


@pytest.mark.slow
def test_processes(tmp_path: Path) -> None:
    options = {"max_steps": 2, "use_cpu": True}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    for name, command in {"two": launch, "one": [sys.executable]}.items():
        subprocess.run(
            [*command, "-m", "tests.training.processes", str(tmp_path / name), json.dumps(options)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PREFERO_CACHE": str(tmp_path / "references")},
            check=True,
            timeout=300,
        )
    two, one = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("two", "one"))
    assert (two["machine"]["processes"], one["machine"]["processes"]) == (2, 1)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_hyperparameters(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "train_dataset": pairs(8),
        "eval_dataset": pairs(4, 1),
        "processing_class": tiny_tokenizer(),
        "output_dir": str(tmp_path / "search"),
        "use_cpu": True,
        "disable_tqdm": True,
        "max_steps": 1,
    }
    run = PreferenceTrainer(model_init=tiny_model, **settings)
    best = run.hyperparameter_search(
        hp_space=lambda trial: {"objective.beta": trial.suggest_categorical("objective.beta", [0.1, 0.5])},
        n_trials=2,
    )
    assert isinstance(best, BestRun) and best.hyperparameters["objective.beta"] in (0.1, 0.5)
    with pytest.raises(PreferoError, match="model_init"):
        PreferenceTrainer(tiny_model(), **settings).hyperparameter_search(n_trials=1)


def judge(prompt: str, response: str) -> float:
    return float(len(response))


def test_samples(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs(12)))
    folder = prefero.train({
        "model": saved_model(tmp_path / "model"),
        "data": str(tmp_path / "rows.jsonl"),
        "output": str(tmp_path / "run"),
        "samples": {"prompts": 2, "every": 1, "max_new_tokens": 4, "judge": f"{__name__}:judge"},
        "training": {"max_steps": 2, "examples_per_step": 4, "use_cpu": True, "disable_tqdm": True},
    })  # fmt: skip
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [[one["step"] for one in line["steps"]] for line in lines] == [[1, 2]] * 2
    assert all({"before", "after"} <= line.keys() for line in lines)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "eval/samples/win_rate" in line] == [0, 1, 2]


# After training


def test_save(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    run = trainer(max_steps=1)
    run.train()
    run.save_model()
    folder = Path(run.args.output_dir)
    assert {"model.safetensors", "tokenizer.json", "README.md"} <= {file.name for file in folder.iterdir()}
    assert need_model(folder) == folder
    assert render(folder).is_file()


def test_card(trainer: Trainer, tmp_path: Path) -> None:
    run = trainer(eval_dataset=pairs(6, 1), max_steps=1)
    run.train()
    run.save_model(str(tmp_path / "saved"))
    card = (tmp_path / "saved/README.md").read_text()
    for part in ("Direct Preference Optimization", "2305.18290", "learning_rate", "held-out", "Cite"):
        assert part.lower() in card.lower(), part


class Hub:
    """Takes what is pushed."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def create_repo(self, name: str, **_: Any) -> RepoUrl:
        return RepoUrl(f"https://huggingface.co/me/{name}")

    def upload_folder(self, *, folder_path: Any, **_: Any) -> Future[str]:
        self.files |= {path.name for path in Path(folder_path).iterdir()}
        done: Future[str] = Future()
        done.set_result("")
        return done


def test_push(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: hub)
    run = trainer(max_steps=1, push_to_hub=True, hub_model_id="aligned")
    run.train()
    run.push_to_hub()
    assert {"model.safetensors", "README.md", "tokenizer.json"} <= hub.files


def test_wrong_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(*where: Any, **_: Any) -> None:
        asked.append(where)
        raise OSError("no network here")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    with pytest.raises(
        PreferoError, match=r"no model can be loaded from 'nobody/nothing'.*cannot be reached"
    ):
        PreferenceTrainer("nobody/nothing", pairs(4), output_dir=str(tmp_path / "run"))
    assert len(asked) <= 2
