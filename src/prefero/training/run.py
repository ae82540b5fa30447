"""Whole runs from a recipe: everything is checked, then trained, and a run folder is left behind."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefero.data.arrange import arrange
from prefero.data.examples import Example, Examples
from prefero.data.formats import load_examples
from prefero.errors import PreferoError
from prefero.evaluate.ranking import ranking_accuracy
from prefero.models.kind import Kind
from prefero.models.loading import ModelSource, kind_of
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import dry_run
from prefero.reference.providers import ReferenceSpec
from prefero.training import checkpoints
from prefero.training.config import (
    DataSection,
    LoraSection,
    PreferenceArguments,
    ReferenceSection,
    TrainConfig,
)
from prefero.training.metrics import Evaluated
from prefero.training.run_folder import refuse_other_run, write_json, write_lines
from prefero.training.trainer import PreferenceTrainer


def train(config: TrainConfig | Mapping[str, Any], *, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Align a model as the recipe says; returns the run folder.

    The folder holds ``run.json``, ``metrics.jsonl``, ``monitors.jsonl``, ``samples.jsonl``, checkpoints, with
    held-out data ``evaluation.json``, and in ``model/`` what was trained, with its tokenizer.

    Raises :class:`PreferoError` for what the user has to change, before anything is trained and as far as
    possible before the model is loaded.
    """
    config = config if isinstance(config, TrainConfig) else TrainConfig.parse(config)
    _check(config)
    _train(config, *_examples(config.data, config.seed), callbacks)
    return config.output


def compare(
    config: TrainConfig | Mapping[str, Any],
    methods: Sequence[str | Mapping[str, Any]],
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Several methods from the same start on the same data and the same cache of reference scores.

    Each has a run folder of its own inside the recipe's output folder, which gets a ``comparison.json``. The
    recipe's own objective is used where it is the method's. Returns the folder. Nothing is trained unless all
    methods can be.
    """
    config = config if isinstance(config, TrainConfig) else TrainConfig.parse(config)
    training, held_out = _examples(config.data, config.seed)
    runs: dict[str, TrainConfig] = {}
    for one in methods:
        objective = {"method": one} if isinstance(one, str) else dict(one)
        if objective == {"method": config.objective.get("method")}:
            objective = config.objective
        name = _unused(str(objective.get("method")), runs)
        run = config.model_copy(update={"objective": objective, "output": config.output / name})
        _check(run)
        needs = dry_run(from_config(objective))
        for examples in (training, held_out):
            if examples is not None:
                arrange(examples, needs.roles, needs.columns, for_method=name)
        runs[name] = run
    rows = [row for name, run in runs.items() for row in _train(run, training, held_out, callbacks, name)]
    write_json(config.output / "comparison.json", {"runs": list(runs), "evaluation": {"rows": rows}})
    return config.output


def arguments(config: TrainConfig) -> PreferenceArguments:
    """The trainer's arguments that a recipe stands for. Raises :class:`PreferoError` for what cannot be."""
    training = config.training
    settings: dict[str, Any] = {
        "output_dir": str(config.output),
        "seed": config.seed,
        "num_train_epochs": training.epochs,
        "max_steps": training.max_steps or -1,
        "learning_rate": training.learning_rate,
        "objective_learning_rate": training.objective_learning_rate,
        "objective_weight_decay": training.objective_weight_decay,
        "extrapolation": training.extrapolation,
        "extrapolation_every": training.extrapolation_every,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": training.warmup,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "examples_per_step": training.examples_per_step,
        "tokens_per_row": training.tokens_per_row,
        "max_length": config.data.max_length,
        "layout": training.layout,
        "bf16": training.precision == "bfloat16",
        "fp16": training.precision == "float16",
        "activation_checkpointing": training.activation_checkpointing,
        "dropout": training.dropout,
        "parallel": training.parallel,
        "logging_steps": training.logging_steps,
        "save_strategy": "no" if training.save_steps is None else "steps",
        "save_total_limit": training.save_total_limit,
        "overwrite": training.overwrite,
    }
    if training.optimizer is not None:
        settings["optim"] = training.optimizer
    if training.save_steps is not None:
        settings["save_steps"] = training.save_steps
    if config.data.eval is not None:
        settings |= {"eval_strategy": "steps", "eval_steps": training.eval_steps or 0.1}
    try:
        return PreferenceArguments(**{**settings, **training.arguments})
    except (ValueError, TypeError, ImportError) as error:
        raise PreferoError(f"training: {error}") from None


def _check(config: TrainConfig) -> None:
    """What can be wrong before data and model are looked at."""
    from_config(config.objective)
    resumes = checkpoints.to_resume_from(config.output, config.training.resume)
    if not (resumes or config.training.overwrite or config.training.resume == "auto"):
        refuse_other_run(config.output)
    lora = config.model.lora
    if lora is not None and lora.dropout and not config.training.dropout:
        raise PreferoError(
            "model.lora.dropout is set, but dropout is off, because log-probabilities are compared across "
            "passes: set training.dropout=true, or leave model.lora.dropout out"
        )
    if config.model.quantization is not None and lora is None:
        raise PreferoError(
            "a quantised model cannot be trained itself: add adapters with model.lora, or leave out "
            "model.quantization"
        )


def _train(
    config: TrainConfig,
    training: Examples,
    held_out: Examples | None,
    callbacks: Sequence[TrainerCallback],
    name: str = "",
) -> list[dict[str, Any]]:
    """Train and leave the run folder; returns the rows of its evaluation."""
    model = config.model
    source = ModelSource(
        model.name,
        processor_name=model.tokenizer,
        revision=model.revision,
        dtype=model.dtype,
        attention=model.attention,
        quantization=model.quantization,
        trust_remote_code=model.trust_remote_code,
    )
    kind = kind_of(model.kind, source, options=model.options)
    trainer = PreferenceTrainer(
        source,
        training,
        held_out,
        config.objective,
        arguments(config),
        kind=kind,
        reference=_spec(config.reference),
        models={name: _spec(one) for name, one in config.models.items()},
        peft_config=_lora(model.lora, kind),
        callbacks=list(callbacks),
        recipe=config.as_dict(),
    )
    trainer.add_callback(
        Samples(
            kind,
            held_out if held_out is not None else training,
            config.training.samples,
            max_length=trainer.args.max_length,
            seed=config.seed,
        )
    )
    trainer.train(config.training.resume)
    trainer.save_model(str(config.output / "model"))
    rows = []
    if held_out is not None:
        rows.append(held_out_row(name or trainer.made.method, trainer.final_evaluation()))
        if trainer.is_world_process_zero():
            write_json(config.output / "evaluation.json", {"rows": rows})
    del trainer
    gc.collect()  # a trainer holds itself in cycles, and the next run of a comparison needs its memory
    return rows


def _examples(data: DataSection, seed: int) -> tuple[Examples, Examples | None]:
    def read(source: str, split: str, limit: int | None) -> Examples:
        return load_examples(
            source, split=split, format=data.format, skip_bad_rows=data.skip_bad_rows, limit=limit
        )

    training = read(data.train, data.split, data.limit)
    if data.eval is None:
        return training, None
    if isinstance(data.eval, float):
        return training.hold_out(data.eval, seed)
    return training, read(data.eval, data.eval_split, data.eval_limit)


def _spec(section: ReferenceSection) -> ReferenceSpec:
    return ReferenceSpec(**{name: getattr(section, name) for name in type(section).model_fields})


def _lora(section: LoraSection | None, kind: Kind) -> LoraConfig | None:
    if section is None:
        return None
    targets = section.target_modules or kind.lora_targets
    return LoraConfig(
        task_type=kind.task_type,
        r=section.r,
        lora_alpha=section.alpha,  # type: ignore[arg-type]
        lora_dropout=section.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=section.modules_to_save,
    )


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or the name with the first number that makes it another one."""
    number = 2
    candidate = name
    while candidate in taken:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def held_out_row(method: str, found: Evaluated) -> dict[str, Any]:
    """A row of ``evaluation.json``: the share of held-out pairs that the reward orders as the data do, with
    Wilson's 95 % interval over pairs, where the objective compares pairs; and the objective's loss."""
    row: dict[str, Any] = {"method": method, "loss": found.loss, "interval": {}}
    margins = found.values.get("rewards/margins")
    if margins is not None:
        there = found.weights["rewards/margins"] > 0
        ranking = ranking_accuracy(margins[there].tolist())
        row["accuracy"] = ranking.accuracy
        row["interval"]["accuracy"] = [ranking.interval.low, ranking.interval.high]
    return row


class Samples(TrainerCallback):
    """Responses to a few prompts by the policy as it was and as it became, with the same noise.

    What came before is written to ``samples.jsonl`` before training, so that a resumed run still has it.
    Prompts that leave too little of ``max_length`` tokens are passed over. Several processes write none.
    """

    def __init__(
        self,
        kind: Kind,
        examples: Sequence[Example],
        count: int,
        *,
        max_length: int | None,
        seed: int,
    ) -> None:
        self.kind, self.max_length, self.seed = kind, max_length, seed
        self.prompts = kind.prompts(examples, count, max_length)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        if self.prompts and args.world_size == 1 and state.global_step == 0:
            drawn = zip(self.prompts, self._drawn(model), strict=True)
            write_lines(_file(args), [{"prompt": _shown(prompt), "before": text} for prompt, text in drawn])

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        if state.global_step == state.max_steps and _file(args).is_file():
            lines = [json.loads(line) for line in _file(args).read_text(encoding="utf-8").splitlines()]
            if len(lines) == len(self.prompts):
                drawn = zip(lines, self._drawn(model), strict=True)
                write_lines(_file(args), [line | {"after": text} for line, text in drawn])

    def _drawn(self, model: nn.Module | None) -> list[Any]:
        assert model is not None
        return self.kind.sample(model, self.prompts, self.seed, self.max_length)


def _file(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir)) / "samples.jsonl"


def _shown(prompt: Any) -> str:
    if not isinstance(prompt, tuple):
        return str(prompt)
    return "\n\n".join(f"{message.get('role')}: {message.get('content')}" for message in prompt)
