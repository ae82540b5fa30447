"""Whole runs from a recipe: everything is checked, then trained, and a run folder is left behind."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from prefero.data.examples import Examples
from prefero.data.formats import BadRowError, load_examples, row_function
from prefero.data.mixture import mixed
from prefero.errors import PreferoError
from prefero.models.kind import Kind
from prefero.models.loading import kind_of
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import dry_run
from prefero.reference.providers import Adapters, ReferenceSpec, chosen_kind
from prefero.storage import check_output
from prefero.training import checkpoints
from prefero.training.config import DataSection, DataSource, PreferenceArguments, TrainConfig
from prefero.training.identity import of_objective
from prefero.training.lock import refuse_running
from prefero.training.preparation import demands_of, specs_of
from prefero.training.run_folder import refuse_files_of_others, refuse_other_run
from prefero.training.trainer import PreferenceTrainer
from prefero.training.trial import try_out


def train(config: TrainConfig | Mapping[str, Any], *, callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """Align a model as the recipe says; returns the run folder.

    The folder holds ``run.json``, ``metrics.jsonl``, ``monitors.jsonl``, ``samples.jsonl``, checkpoints, with
    held-out data ``evaluation.json``, and in ``model/`` the trained model with its tokenizer.

    Raises :class:`PreferoError` for what the user has to change, before anything is trained and as far as
    possible before the model is loaded.
    """
    config = config if isinstance(config, TrainConfig) else TrainConfig.parse(config)
    objective, kind = checked(config)
    train_checked(config, objective, kind, *read_examples(config.data, config.seed), callbacks)
    return config.output


def arguments(config: TrainConfig) -> PreferenceArguments:
    """The trainer's arguments that a recipe stands for. Held-out data are evaluated on ten times in a run; to
    load the best model at its end, it is saved as often.

    Raises :class:`PreferoError` for values that do not go together.
    """
    settings: dict[str, Any] = {
        "output_dir": str(config.output),
        "seed": config.seed,
        "max_length": config.data.max_length,
        "too_long": config.data.too_long,
        "template": config.data.template,
        "chat_template_kwargs": config.data.chat_template_kwargs,
        "score": config.data.score,
    }
    if config.data.eval is not None:
        settings |= {"eval_strategy": "steps", "eval_steps": 0.1}
    for name in config.training.model_fields_set:
        value = getattr(config.training, name)
        if value is not None or name not in settings:
            settings[name] = value
    given = config.training.model_fields_set
    evaluated = settings.get("eval_strategy", "no")
    if settings.get("load_best_model_at_end") and not {"save_steps", "save_strategy"} & given:
        settings |= {"save_strategy": evaluated, "save_steps": settings.get("eval_steps") or 1}
    return PreferenceArguments(**settings)


def checked(config: TrainConfig) -> tuple[Objective, Kind]:
    """The objective of a recipe, and the kind of its model. Raises :class:`PreferoError` for all that can be
    wrong before data and weights are looked at."""
    objective = from_config(config.objective)
    check_output(config.output, "folder")
    refuse_running(config.output)
    args = arguments(config)
    try_out(args, held_out=config.data.eval is not None)
    wanted = config.training.resume_from_checkpoint
    if same := checkpoints.comparison(args, config.as_dict()):
        same({"objective": of_objective(objective)})
    if wanted == "auto" or config.training.overwrite:
        refuse_files_of_others(config.output)
    elif not checkpoints.to_resume_from(config.output, wanted):
        refuse_other_run(config.output)
    lora = config.model.lora
    if lora is not None and lora.dropout and not config.training.dropout:
        raise PreferoError(
            "model.lora.dropout is set, but dropout is off, because log-probabilities are compared across "
            "passes: set training.dropout=true, or leave model.lora.dropout out"
        )
    if config.model.quantization is not None and lora is None and not config.model.continues:
        raise PreferoError(
            "a quantised model cannot be trained itself: add adapters with model.lora, or leave out "
            "model.quantization"
        )
    kind = kind_of("auto", config.model)
    needs = dry_run(objective)
    kind.check(needs)
    specs = specs_of({**config.models, "reference": config.reference}, objective)
    for name, demand in demands_of(needs, kind).items():  # adapters are known once the model is loaded
        chosen_kind(name, specs.get(name, ReferenceSpec()), demand, Adapters(there=True))
    return objective, kind


def train_checked(
    config: TrainConfig,
    objective: Objective,
    kind: Kind,
    training: Examples,
    held_out: Examples | None,
    callbacks: Sequence[TrainerCallback],
    *,
    name: str = "",
    begin: Callable[[PreferenceTrainer], None] = lambda trainer: None,
) -> list[dict[str, Any]]:
    """Train by a recipe that is :func:`checked`, and leave the run folder; returns the rows of its
    evaluation. ``begin`` is called once the model is loaded, before anything is trained."""
    trainer = PreferenceTrainer(
        config.model,
        training,
        held_out,
        objective,
        arguments(config),
        kind=kind,
        reference=config.reference,
        models=config.models,
        callbacks=list(callbacks),
        samples=config.samples,
        recipe=config.as_dict(),
    )
    begin(trainer)
    with trainer.running():
        try:
            trainer.train(config.training.resume_from_checkpoint)
        finally:
            if trainer.trained:  # also where what follows training fails
                trainer.save_model(str(config.output / "model"))
    rows = [{**row, "method": name or row["method"]} for row in trainer.measured]
    del trainer
    gc.collect()  # a trainer holds itself in cycles, and the next run of a comparison needs its memory
    return rows


def read_examples(data: DataSection, seed: int) -> tuple[Examples, Examples | None]:
    """The examples to train on and those that are held out."""
    read = partial(
        _load,
        format=data.format,
        columns=data.columns,
        map=None if data.map is None else row_function(data.map),
        skip_bad_rows=data.skip_bad_rows,
    )
    if isinstance(data.train, str):
        training = read(data.train, split=data.split, limit=data.limit)
    else:
        training = mixed(
            [_source(each, data) for each in data.train], [each.weight for each in data.train], seed
        )
    if data.eval is None:
        return training, None
    if isinstance(data.eval, float):
        return training.hold_out(data.eval, seed)
    return training, read(data.eval, split=data.eval_split, limit=data.eval_limit)


def _source(source: DataSource, data: DataSection) -> Examples:
    """The examples of one of several sources."""
    function = source.map or data.map
    return _load(
        source.data if source.config is None else f"{source.data}:{source.config}",
        split=source.split or data.split,
        format=source.format or data.format,
        columns=data.columns if source.columns is None else source.columns,
        map=None if function is None else row_function(function),
        skip_bad_rows=data.skip_bad_rows,
        limit=source.limit or data.limit,
    )


def _load(source: str, **options: Any) -> Examples:
    """The examples of a source. An error about a bad row says how a recipe leaves such rows out."""
    try:
        return load_examples(source, **options)
    except BadRowError as error:
        raise BadRowError(error.problem, "data.skip_bad_rows=true") from error
