"""Settings that cannot be used are refused by name before data are read and models loaded."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import HfArgumentParser, TrainerCallback

from prefero.errors import PreferoError
from prefero.training.config import PreferenceArguments
from prefero.training.run import train
from tests.training.test_trainer_arguments import Trainer
from tests.training.tiny import pairs, tiny_model

NOWHERE: dict[str, Any] = {"model": "/no/such/model", "data": "/no/such/rows.jsonl"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"lr_scheduler_kwargs": {"foo": 1}},
            "schedule .*lr_scheduler_kwargs.*'foo'.* of cosine: num_cycles",
        ),
        ({"lr_scheduler_kwargs": {"num_cycles": "a"}}, "schedule .*lr_scheduler_kwargs=.*'a'"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type=cosine_with_min_lr: .*min_lr_rate"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "warmup_stable_decay.*num_decay_steps"),
        ({"optim": "lomo"}, "optim=lomo.*install lomo-optim"),
        ({"optim": "grokadamw"}, r"optimizer .*training\.optim=grokadamw: .*pip install grokadamw"),
        ({"optim": "nonsense"}, "training.optim is 'nonsense': input should be 'adamw_torch'"),
        ({"optim": "sgd", "optim_args": "momentum=x"}, "optim_args=momentum=x: could not convert"),
        ({"optim_args": "foo=1"}, "optim_args=foo=1: it takes no foo"),
        ({"optim_target_modules": "q_proj"}, "only galore and apollo take"),
        ({"adam_beta1": 2}, "training.adam_beta1 is 2: .*less than 1"),
        ({"adam_epsilon": 0}, "training.adam_epsilon is 0"),
        ({"data_seed": -1}, "training.data_seed is -1"),
        ({"log_level": "loud"}, "training.log_level is 'loud': .*'debug'"),
        ({"logging_strategy": "foo"}, "training.logging_strategy is 'foo': .*'steps'"),
        ({"layout": "flex"}, "training.layout is flex, .*CPU"),
        ({"eval_strategy": "steps"}, "training.eval_strategy is steps, but there are no held-out data"),
        ({"eval_on_start": True}, "training.eval_on_start is True, but there are no held-out data"),
        ({"dataloader_num_workers": -1}, "training.dataloader_num_workers is -1"),
        (
            {"dataloader_persistent_workers": True},
            "loader .*dataloader_persistent_workers=True: .*num_workers",
        ),
        (
            {"dataloader_multiprocessing_context": "foo"},
            "training.dataloader_multiprocessing_context is 'foo'",
        ),
        ({"torch_compile_mode": "foo"}, "compiled model .*torch_compile_mode=foo"),
        (
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"every_n_layers": 0}},
            "every_n_layers is at least 1",
        ),
        ({"num_train_epochs": 1e18}, "training.num_train_epochs is 1e.18: .*less than or equal to 1000000"),
    ],
)
def test_refused_before_anything_is_read(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    training = {"use_cpu": True, **settings}
    with pytest.raises(PreferoError, match=message):
        train({**NOWHERE, "output": str(tmp_path / "run"), "training": training})


def test_every_optimizer_that_is_installed_passes(tmp_path: Path, trainer: Trainer) -> None:
    for settings in (
        {"optim": "adafactor"},
        {"optim": "rmsprop", "optim_args": "alpha=0.9"},
        {"lr_scheduler_type": "inverse_sqrt"},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 1}},
    ):
        trainer(max_steps=1, **settings).train()


def test_a_metric_that_is_not_measured_is_told_with_those_that_are(trainer: Trainer) -> None:
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "max_steps": 1}
    with pytest.raises(PreferoError, match=r"metric_for_best_model is eval_nope, .*it gives .*eval_loss"):
        trainer(eval_dataset=pairs(2), metric_for_best_model="nope", **settings).train()


def test_settings_that_a_given_optimizer_leaves_unused_are_told(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    run = trainer(model, optimizers=(optimizer, None), weight_decay=0.2, adam_beta1=0.5)
    unused = "optim=sgd, learning_rate=0.1, adam_beta1=0.5, weight_decay=0.2"
    assert f"not used, because optimizers are given: {unused}" in caplog.text
    assert run.args.learning_rate == 0.05, "which the record of the run says"


def test_messages_name_arguments_to_python_and_places_to_recipes(tmp_path: Path, trainer: Trainer) -> None:
    trainer(output_dir=str(tmp_path / "run"), max_steps=1).train()
    with pytest.raises(PreferoError, match=r"with resume_from_checkpoint=True, .* with overwrite=True"):
        trainer(output_dir=str(tmp_path / "run"), max_steps=1).train()
    with pytest.raises(PreferoError, match=r"^the optimizer cannot be made with optim=grokadamw"):
        trainer(optim="grokadamw")


class Interrupt(TrainerCallback):
    """Ctrl-C in a step."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"stopped after step 1 of 3; .*: resume with resume_from_checkpoint=True"),
        ({"save_only_model": True}, "after step 1 of 3; .* cannot be resumed, because save_only_model"),
    ],
)
def test_ctrl_c_says_whether_the_run_can_be_resumed(
    trainer: Trainer, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(KeyboardInterrupt, match=message):
        trainer(max_steps=3, callbacks=[Interrupt()], **settings).train()


def test_the_parser_of_transformers_reads_the_arguments(tmp_path: Path) -> None:
    words = [
        "--output_dir",
        str(tmp_path),
        "--warmup_steps",
        "0.2",
        "--logging_steps",
        "5",
        "--max_steps",
        "3",
    ]
    words += ["--resume_from_checkpoint", "true", "--lr_scheduler_type", "linear", "--precision", "bfloat16"]
    (args,) = HfArgumentParser(PreferenceArguments).parse_args_into_dataclasses(words)
    assert (args.warmup_steps, args.logging_steps, args.max_steps) == (0.2, 5, 3)
    assert (args.resume_from_checkpoint, args.lr_scheduler_type, args.bf16) == (True, "linear", True)
