"""Whole runs from a recipe: everything is checked, then trained, and a run folder is left behind."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefero.data.arrange import arrange
from prefero.data.examples import Example, Examples, Message
from prefero.data.formats import BadRowError, load_examples, row_function
from prefero.data.mixture import mixed
from prefero.errors import PreferoError
from prefero.evaluate.ranking import ranking_accuracy
from prefero.models.kind import Kind
from prefero.models.loading import kind_of
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import dry_run
from prefero.storage import check_output, read_lines, write_json, write_lines
from prefero.training import checkpoints
from prefero.training.config import DataSection, DataSource, PreferenceArguments, TrainConfig
from prefero.training.identity import of_objective
from prefero.training.lock import refuse_running
from prefero.training.metrics import Evaluated
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
    objective, kind = _checked(config)
    _train(config, objective, kind, *_examples(config.data, config.seed), callbacks)
    return config.output


def compare(
    config: TrainConfig | Mapping[str, Any],
    methods: Sequence[str | Mapping[str, Any]],
    *,
    callbacks: Sequence[TrainerCallback] = (),
) -> Path:
    """Train several methods from the same start on the same data and the same cache of reference scores.

    Each has a run folder of its own inside the recipe's output folder, which gets a ``comparison.json``. The
    recipe's own objective is used where it is the method's. Returns the folder. Nothing is trained unless all
    methods can be.
    """
    config = config if isinstance(config, TrainConfig) else TrainConfig.parse(config)
    if (config.output / "run.json").is_file():
        raise PreferoError(f"{config.output} holds a single run: name another folder for a comparison")
    runs: dict[str, tuple[TrainConfig, Objective, Kind]] = {}
    for method in methods:
        configured = {"method": method} if isinstance(method, str) else dict(method)
        if configured == {"method": config.objective.get("method")}:
            configured = config.objective
        name, number = str(configured.get("method")), 2
        while name in runs:
            name, number = f"{configured.get('method')}-{number}", number + 1
        run = config.model_copy(update={"objective": configured, "output": config.output / name})
        runs[name] = run, *_checked(run)
    training, held_out = _examples(config.data, config.seed)
    for name, (_, objective, _) in runs.items():
        needs = dry_run(objective)
        for examples in (training, held_out):
            if examples is not None:
                arrange(examples, needs.roles, needs.columns, for_method=name)
    rows = [row for name, run in runs.items() for row in _train(*run, training, held_out, callbacks, name)]
    write_json(config.output / "comparison.json", {"runs": list(runs), "evaluation": {"rows": rows}})
    return config.output


def arguments(config: TrainConfig) -> PreferenceArguments:
    """The trainer's arguments that a recipe stands for. Held-out data are evaluated on ten times in a run.

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
    for name in config.training.model_fields_set - {"samples"}:
        value = getattr(config.training, name)
        if value is not None or name not in settings:
            settings[name] = value
    return PreferenceArguments(**settings)


def _checked(config: TrainConfig) -> tuple[Objective, Kind]:
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
    kind.check(dry_run(objective))
    return objective, kind


def _train(
    config: TrainConfig,
    objective: Objective,
    kind: Kind,
    training: Examples,
    held_out: Examples | None,
    callbacks: Sequence[TrainerCallback],
    name: str = "",
) -> list[dict[str, Any]]:
    """Train and leave the run folder; returns the rows of its evaluation."""
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
        recipe=config.as_dict(),
    )
    max_length = trainer.args.max_length
    prompts = kind.prompts(training if held_out is None else held_out, config.training.samples, max_length)
    trainer.add_callback(Samples(config.output / "samples.jsonl", kind, prompts, max_length, config.seed))
    rows: list[dict[str, Any]] = []
    with trainer.running():
        trainer.train(config.training.resume_from_checkpoint)
        try:
            if held_out is not None:  # before the model is saved, and pushed with a card that says it
                rows.append(held_out_row(name or trainer.prepared.method, trainer.final_evaluation()))
                if trainer.is_world_process_zero():
                    write_json(config.output / "evaluation.json", {"rows": rows})
        finally:
            trainer.save_model(str(config.output / "model"))
    del trainer
    gc.collect()  # a trainer holds itself in cycles, and the next run of a comparison needs its memory
    return rows


def _examples(data: DataSection, seed: int) -> tuple[Examples, Examples | None]:
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


def held_out_row(method: str, evaluated: Evaluated) -> dict[str, Any]:
    """A row of ``evaluation.json``: the share of held-out pairs that the reward orders as the data do, with
    Wilson's 95 % interval over pairs, where the objective compares pairs; and the objective's loss."""
    row: dict[str, Any] = {"method": method, "loss": evaluated.loss, "interval": {}}
    margins = evaluated.values.get("rewards/margins")
    if margins is not None:
        ranking = ranking_accuracy(margins[evaluated.weights["rewards/margins"] > 0].tolist())
        row["accuracy"] = ranking.accuracy
        row["interval"]["accuracy"] = [ranking.interval.low, ranking.interval.high]
    return row


@dataclass(eq=False)
class Samples(TrainerCallback):
    """Responses to a few prompts by the policy before and after training, from the same seed.

    Those from before are written to ``file`` before training, so that a resumed run still has them. Several
    processes write none.
    """

    file: Path
    kind: Kind
    prompts: list[Any]
    max_length: int | None
    seed: int

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        if self.prompts and args.world_size == 1 and state.global_step == 0:
            assert model is not None
            drawn = self.kind.sample(model, self.prompts, self.seed, self.max_length)
            pairs = zip(self.prompts, drawn, strict=True)
            write_lines(self.file, [{"prompt": _shown(prompt), "before": text} for prompt, text in pairs])

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        lines = list(read_lines(self.file)) if state.global_step == state.max_steps else []
        if lines and len(lines) == len(self.prompts):
            assert model is not None
            drawn = self.kind.sample(model, self.prompts, self.seed, self.max_length)
            pairs = zip(lines, drawn, strict=True)
            write_lines(self.file, [line | {"after": text} for line, text in pairs])


def _shown(prompt: Any) -> str:
    """A prompt of a kind of model, or that of an example, as a reader sees it."""
    if not isinstance(prompt, Example):
        return str(prompt)
    images, asked = prompt.images.get("", ()), prompt.prompt
    turns = (asked,) if isinstance(asked, str) else tuple(map(_turn_shown, asked))
    return "\n\n".join((f"[{len(images)} images]", *turns) if images else turns)


def _turn_shown(turn: Message) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", f"[{part.get('type')}]") for part in content)
    return f"{turn.get('role')}: {content}"
