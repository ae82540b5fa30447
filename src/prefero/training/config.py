"""The settings of a run: one typed model for a recipe in YAML, ``key=value`` and the trainer in Python.

:class:`PreferenceArguments` holds name, type, range, default and text of each setting of the trainer. The
section ``training`` of a recipe (:data:`Settings`) and the documentation are made of it.
:mod:`prefero.training.vocabulary` says which names of transformers it takes, and what other names are here.
"""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

import torch
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, create_model, model_validator
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames
from transformers.utils import is_torch_bf16_gpu_available

from prefero.data.chat import Score
from prefero.data.formats import parse_columns
from prefero.data.tokenize import TooLong
from prefero.errors import PreferoError, nearest
from prefero.models.loading import ModelSource
from prefero.reference.providers import ReferenceSpec
from prefero.sections import Section, fields_of, problems, sections_in
from prefero.training.vocabulary import (
    OLD_NAMES,
    OTHER_NAMES,
    RECIPE_PLACES,
    REFUSED,
    REPLACED,
    TAKEN,
    current_names,
    in_their_places,
)

FULL_LEARNING_RATE = 5e-7
ADAPTER_LEARNING_RATE = 1e-5

MOST = 10**9
Count = Annotated[int, Field(ge=1, le=MOST)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Steps = Count | Annotated[float, Field(gt=0, lt=1)]
"""A number of optimizer steps, or below 1 a share of all."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
LogLevel = Literal["detail", "debug", "info", "warning", "error", "critical", "passive"]
MOST_WORKERS = 1000
MOST_EPOCHS = 10**6
"""Every epoch is planned before training."""


def _template(value: Any) -> Any:
    """``none`` as YAML and Python write it too."""
    return value.lower() if isinstance(value, str) and value.lower() in ("none", "auto") else value


TemplateName = Annotated[str, BeforeValidator(_template)]


def _one_of(choices: type[Enum]) -> Any:
    """The type of a text that is the value of a choice, which may be given itself."""
    texts: Any = Literal[tuple(choice.value for choice in choices)]
    return Annotated[texts, BeforeValidator(lambda given: getattr(given, "value", given))]


def _truth(value: Any) -> Any:
    """``true`` and ``false`` as a command line has them."""
    return value.lower() == "true" if isinstance(value, str) and value.lower() in ("true", "false") else value


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class PreferenceArguments(TrainingArguments):
    """:class:`transformers.TrainingArguments` with settings and defaults of ours.

    A step takes ``examples_per_step`` examples, whatever the number of micro-batches and processes;
    micro-batches and gradient accumulation follow from ``tokens_per_row``.

    ``extrapolation`` is the momentum α of accelerated preference optimization (He et al., 2024, arXiv
    2410.06293, reported with 0.3): after each round of ``extrapolation_every`` optimizer steps, by default an
    epoch, θ ← θ̂ + α (θ̂ − θ̂_previous), between iterates before extrapolation. It goes with a reference of
    ``kind: moving, alpha: 1`` and the same ``every``, which is then the extrapolated policy.

    Raises :class:`PreferoError` for a value out of range, and for a setting of transformers that another one
    stands for here or that cannot be set (:data:`~prefero.training.vocabulary.REPLACED`,
    :data:`~prefero.training.vocabulary.REFUSED`).
    """

    examples_per_step: Count = _setting(32, "Examples in an optimizer step.")
    tokens_per_row: Count | None = _setting(
        None, "Most tokens in one forward pass; by default what suits device and layout."
    )
    layout: Literal["auto", "trees", "dense", "flex", "padded"] = _setting(
        "auto", "How examples share a forward pass: trees share prompts, padded is one response a row."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = _setting(
        "float32", "Of the arithmetic, by autocast; auto is bfloat16 on a GPU that has it, else float32."
    )
    parallel: Literal["auto", "fsdp"] = _setting(
        "auto", "fsdp shards the model over the processes; auto is what the launcher says, or DDP."
    )
    dropout: bool = _setting(False, "Keep the model's dropout on during training.")
    max_length: Annotated[int, Field(ge=2, le=MOST)] | None = _setting(
        None, "Most tokens of a prompt with its response; by default the model's context."
    )
    too_long: TooLong = _setting(
        "cut_response", "Past max_length: cut_response (old turns go first), keep_recent_prompt, drop, error."
    )
    template: TemplateName = _setting(
        "auto", "The chat template: auto, own (the tokenizer's), none, a training template's name, or a file."
    )
    score: Score = _setting(
        "last",
        "Which turns of the assistant are scored: last is the response, all_assistant those before too.",
    )
    chat_template_kwargs: dict[str, Any] | None = _setting(
        None, "Arguments for the chat template; those of a row come on top."
    )
    overwrite: bool = _setting(False, "Replace a run that the output folder holds.")
    objective_learning_rate: Positive | None = _setting(
        None, "Of what the objective itself learns, such as a head; by default the policy's."
    )
    objective_weight_decay: NotNegative = _setting(0.0, "Of what the objective itself learns.")
    extrapolation: Share | None = _setting(None, "Momentum between rounds; by default there is none.")
    extrapolation_every: Count | None = _setting(
        None, "Optimizer steps of a round of extrapolation; by default an epoch."
    )
    early_stopping_patience: Count | None = _setting(
        None, "Evaluations without a better metric_for_best_model after which training stops; null is never."
    )
    early_stopping_threshold: NotNegative = _setting(0.0, "The least by which the metric has to be better.")

    seed: Seed = _setting(0, "Of shuffling, of noise, and of weights that are drawn.")
    num_train_epochs: Annotated[float, Field(gt=0, le=MOST_EPOCHS)] = _setting(
        1.0, "Times that each example is trained on."
    )
    max_steps: int = _setting(-1, "Optimizer steps; -1 is as many as the epochs have.")
    learning_rate: NotNegative | None = _setting(  # type: ignore[assignment]
        None, "By default that of objective.settings, or 5e-7 for all weights and 1e-5 for adapters."
    )
    lr_scheduler_type: SchedulerType = _setting(SchedulerType.COSINE, "The schedule of the learning rate.")
    warmup_steps: float = _setting(
        0.1, "Steps of warm-up, the first with learning rate 0; below 1, a share of all steps."
    )
    weight_decay: NotNegative = _setting(0.0, "Of the policy's weights, except biases and norms.")
    max_grad_norm: NotNegative = _setting(1.0, "Gradients are clipped to this norm; 0 is not at all.")
    logging_steps: float = _setting(10, "Steps between two logs; below 1, a share of all steps.")
    logging_nan_inf_filter: bool = _setting(
        False, "Train on past losses and gradients that are no numbers, and leave them out of the log."
    )
    eval_steps: float | None = _setting(None, "Steps between two evaluations; below 1, a share of all steps.")
    save_steps: float = _setting(500, "Steps between two checkpoints; below 1, a share of all steps.")
    save_total_limit: Count | None = _setting(2, "Checkpoints to keep; null is all.")
    resume_from_checkpoint: str | None = _setting(
        None, "true: the latest whole checkpoint; auto: that or the start; or a checkpoint's folder."
    )

    # Not to be set: a step is planned, and the objective decides which columns are read.
    remove_unused_columns: bool = False
    per_device_train_batch_size: int = 1
    per_device_eval_batch_size: int = 1

    @classmethod
    def given(cls, args: PreferenceArguments | None, settings: Mapping[str, Any]) -> PreferenceArguments:
        """The arguments, given whole (then a copy) or one by one. Raises :class:`PreferoError` for unknown
        ones."""
        settings = read_settings(settings)
        if args is not None and settings:
            raise PreferoError(f"{', '.join(settings)}: give either args or single settings, not both")
        if args is not None:
            if not isinstance(args, cls):
                raise PreferoError(
                    f"args is {type(args).__name__}: give prefero.PreferenceArguments, which takes what "
                    "transformers.TrainingArguments does where it means the same here, and the arguments of "
                    "the method in objective={'method': 'dpo', 'beta': 0.1} (docs/trl.md has the names)"
                )
            return copy.copy(args)  # a trainer fills in what is left open, such as the learning rate
        known = [argument.name for argument in fields(cls)]
        for name in settings:
            if name not in known:
                raise PreferoError(f"PreferenceTrainer has no argument {name!r}{nearest(name, known)}")
        return cls(**settings)

    def __post_init__(self) -> None:
        refuse_foreign(self._foreign())
        for name in _FIELDS.keys() - OWN:
            if getattr(self, name) is None and not _takes_null(name):
                setattr(self, name, _DEFAULTS[name])
        try:
            checked = _Checked.model_validate({name: getattr(self, name) for name in _FIELDS})
        except ValidationError as error:
            raise PreferoError("; ".join(problems(error, _Checked))) from None
        for name in _FIELDS:
            setattr(self, name, getattr(checked, name))
        if self.extrapolation_every is not None and self.extrapolation is None:
            raise PreferoError(
                "extrapolation_every says how long a round is, but there is no extrapolation: set it too"
            )
        if not torch.accelerator.is_available():
            # Unless the CPU is asked for, processes on it do not see each other, and bfloat16 is refused.
            self.use_cpu = True
        on_gpu = not self.use_cpu and is_torch_bf16_gpu_available()
        self.bf16 = self.precision == "bfloat16" or (self.precision == "auto" and on_gpu)
        self.fp16 = self.precision == "float16"
        self.report_to = self.report_to or "none"
        try:
            super().__post_init__()
        except (ValueError, TypeError, ImportError) as error:
            if "load_best_model_at_end requires" in str(error):
                raise PreferoError(_UNSAVED.format(self=self)) from None
            raise PreferoError(f"training: {error}") from None
        if self.save_strategy == "best" and not self.metric_for_best_model:
            raise PreferoError(
                "save_strategy='best' needs metric_for_best_model, such as 'rewards/accuracies'"
            )
        if self.early_stopping_threshold and self.early_stopping_patience is None:
            raise PreferoError(
                "training.early_stopping_threshold says what a better metric is, but nothing stops early: "
                "set training.early_stopping_patience too"
            )
        if self.early_stopping_patience is not None and not self.metric_for_best_model:
            raise PreferoError(
                "training.early_stopping_patience needs the metric that has to become better: set "
                "training.metric_for_best_model, such as loss or rewards/accuracies"
            )

        greater = BETTER.get(str(self.metric_for_best_model).removeprefix("eval_"))
        if greater is not None and self.greater_is_better is not greater:
            raise PreferoError(
                f"training.greater_is_better is {str(not greater).lower()}, which keeps the worst model by "
                f"{self.metric_for_best_model}: leave it out"
            )

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """The steps of warm-up; where they are a share of the run, one step at least comes behind them."""
        steps = int(super().get_warmup_steps(num_training_steps))
        return steps if self.warmup_steps >= 1 else min(steps, num_training_steps - 1)

    def _foreign(self) -> dict[str, Any]:
        """The fields that cannot be set here and were. What :class:`transformers.TrainingArguments` makes of
        them by itself is in a copy of arguments too, and does not count."""
        given = {
            setting.name: getattr(self, setting.name)
            for setting in fields(self)
            if setting.name in REPLACED.keys() | REFUSED.keys()
            and getattr(self, setting.name) != _DEFAULTS[setting.name]
        }
        if not given or not isinstance(self.accelerator_config, AcceleratorConfig):
            return given
        untouched = copy.copy(_untouched())
        untouched.bf16, untouched.fp16 = self.precision in ("bfloat16", "auto"), self.precision == "float16"
        untouched.gradient_accumulation_steps = self.gradient_accumulation_steps  # a trainer's plan
        untouched.gradient_checkpointing = self.activation_checkpointing
        untouched.gradient_checkpointing_kwargs = self.activation_checkpointing_kwargs
        return {name: value for name, value in given.items() if value != getattr(untouched, name)}

    def to_dict(self) -> dict[str, Any]:
        """The settings by name, without those that cannot be set."""
        return {name: value for name, value in super().to_dict().items() if name in TAKEN | OWN}


BETTER: Mapping[str, bool] = {
    "loss": False, "rewards/accuracies": True, "rewards/margins": True, "samples/win_rate": True,
    "samples/score": True,
}  # fmt: skip
"""Metrics of held-out data, and whether more of them is better."""

_UNSAVED = (
    "training.load_best_model_at_end needs a checkpoint at every evaluation that may be the best, but "
    "save_strategy is {self.save_strategy} with save_steps {self.save_steps}, and eval_strategy is "
    "{self.eval_strategy} with eval_steps {self.eval_steps}: make the two strategies the same, and "
    "training.save_steps a multiple of training.eval_steps"
)


@cache
def _untouched() -> PreferenceArguments:
    return PreferenceArguments(output_dir="untouched")


OWN = frozenset(PreferenceArguments.__annotations__) - REPLACED.keys() - REFUSED.keys()
"""Settings that transformers does not have, or has with another default."""

_DEFAULTS = dict.fromkeys(REFUSED) | {
    setting.name: setting.default if setting.default_factory is MISSING else setting.default_factory()
    for setting in fields(PreferenceArguments)
}
_CHECKED_AS: Mapping[str, Any] = {
    "max_steps": Literal[-1] | Annotated[int, Field(ge=1, le=MOST)],
    "warmup_steps": Count | Share,
    "logging_steps": Steps,
    "eval_steps": Steps | None,
    "save_steps": Steps,
    "resume_from_checkpoint": Annotated[bool | str | Path | None, BeforeValidator(_truth)],
    "adam_beta1": Share,
    "adam_beta2": Share,
    "adam_epsilon": Positive,
    "data_seed": Seed | None,
    "dataloader_num_workers": Annotated[int, Field(ge=0, le=MOST_WORKERS)],
    "dataloader_prefetch_factor": Count | None,
    "dataloader_multiprocessing_context": Literal["fork", "spawn", "forkserver"] | None,
    "ddp_bucket_cap_mb": Count | None,
    "ddp_timeout": Count,
    "eval_delay": NotNegative,
    "eval_strategy": _one_of(IntervalStrategy),
    "hub_strategy": _one_of(HubStrategy),
    "log_level": LogLevel,
    "log_level_replica": LogLevel,
    "logging_strategy": _one_of(IntervalStrategy),
    "optim": _one_of(OptimizerNames),
    "save_strategy": _one_of(SaveStrategy),
    "torch_empty_cache_steps": Count | None,
}
"""What fields take whose annotations say less: those of transformers, and those that its parser of command
lines (:class:`transformers.HfArgumentParser`) reads, which knows no unions."""

_TYPES = {**get_type_hints(PreferenceArguments, include_extras=True), **_CHECKED_AS}


_FIELDS: dict[str, Any] = {
    setting.name: (
        _TYPES[setting.name],
        Field(default=setting.default, description=setting.metadata.get("help")),
    )
    for setting in sorted(fields(PreferenceArguments), key=lambda setting: setting.name not in OWN)
    if setting.name in TAKEN | OWN and setting.name != "output_dir"
}

Settings: Any = create_model(
    "Settings",
    __base__=Section,
    __doc__="How to train, by the names of ``transformers.TrainingArguments`` and a few of our own.",
    **{name: definition for name, definition in _FIELDS.items() if name not in RECIPE_PLACES},
)
"""The section ``training`` of a recipe."""

_Checked: Any = create_model("Checked", __base__=Section, **_FIELDS)


def read_settings(given: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Settings by their current names. ``place`` stands before a name in messages. A null leaves a setting at
    its default, unless it can be null.

    Raises :class:`PreferoError` for a setting that is given twice, and as :func:`refuse_foreign` does.
    """
    settings = current_names(given, _warn, place)
    refuse_foreign(settings, place)
    for name, value in list(settings.items()):
        if value is None and not _takes_null(name):
            del settings[name]
        elif value is False and name.endswith("_strategy"):
            settings[name] = "no"  # which YAML reads as false
        elif name in REPLACED or name in REFUSED:
            del settings[name]  # its default, or it would have been refused
    return settings


def _takes_null(name: str) -> bool:
    """Whether null is a value of a setting, and not just its default; so it is for what is unknown here."""
    known = Settings.model_fields.get(name)
    return known is None or type(None) in get_args(known.annotation)


def _warn(message: str) -> None:
    warnings.warn(message, FutureWarning, stacklevel=4)


OUR_SIZES = ("per_device_train_batch_size", "per_device_eval_batch_size")
"""Fields whose default says nothing of a step, so that it is refused where it is given, too."""


def _is_off(value: Any) -> bool:
    return value is None or value is False or value in ("", "no", [], {})


def refuse_foreign(settings: Mapping[str, Any], place: str = "") -> None:
    """Raise :class:`PreferoError` for a setting of transformers or TRL that is another one here, or none;
    those at their default, or switched off, are passed over."""
    for name, value in settings.items():
        if place and name in RECIPE_PLACES:
            raise PreferoError(f"{place}{name} is {RECIPE_PLACES[name]} in a recipe")
        if _is_off(value) and (name in REPLACED or _is_off(_DEFAULTS.get(name, True))):
            continue
        if name in _DEFAULTS and name not in OUR_SIZES and value == _DEFAULTS[name]:
            continue
        if name in REPLACED:
            setting, reason = REPLACED[name]
            raise PreferoError(f"{place}{name} is {setting} here: {reason}")
        if name in REFUSED:
            raise PreferoError(f"{place}{name} cannot be set: {REFUSED[name]}")
        if name in OTHER_NAMES:
            raise PreferoError(f"no setting is called {place}{name}: it is {OTHER_NAMES[name]}")


def _is_share(value: Any) -> Any:
    if isinstance(value, float) and not 0 < value < 1:
        raise ValueError("a number here is the share of the examples to hold out, between 0 and 1")
    return value


def _columns(value: Any) -> Any:
    return parse_columns(value) if isinstance(value, str) else value


class DataSource(Section):
    """One of several sources of training data. ``weight`` is how often each of its examples is taken in an
    epoch: 2 is twice, 0.5 is half of them, drawn with the run's seed. What it leaves out is the section's."""

    data: str
    weight: Annotated[float, Field(gt=0)] = 1.0
    split: str | None = None
    config: str | None = None
    format: str | None = None
    columns: Annotated[dict[str, str] | None, BeforeValidator(_columns)] = None
    map: str | None = None
    limit: Count | None = None


def _sources(value: Any) -> Any:
    """A list of sources, each checked in its own place; anything else as it is."""
    if not isinstance(value, list | tuple):
        return value
    sources = []
    for number, source in enumerate(value):
        try:
            sources.append(DataSource.model_validate({"data": source} if isinstance(source, str) else source))
        except ValidationError as error:
            whole = f"data.train[{number}]"
            raise PreferoError("; ".join(problems(error, DataSource, whole=whole))) from None
    return sources


class DataSection(Section):
    """``train`` and ``eval`` are files, folders or hub names; a number as ``eval`` holds out that share.
    ``train`` may also be a list of sources: ``[{data: a.jsonl, weight: 2}, {data: owner/name, config: en}]``.

    ``columns`` says under which names the rows have their fields: ``{prompt: context}``, or as text
    ``prompt=context,chosen=good``. ``map`` names a Python function, ``module:function``, that makes a row of
    each row.
    """

    train: Annotated[str | Annotated[list[DataSource], Field(min_length=1)], BeforeValidator(_sources)]
    eval: Annotated[str | float, AfterValidator(_is_share)] | None = None
    split: str = "train"
    eval_split: str = "test"
    format: str = "auto"
    columns: Annotated[dict[str, str], BeforeValidator(_columns)] = Field(default_factory=dict)
    map: str | None = None
    max_length: Annotated[int, Field(ge=2, le=MOST)] | None = None
    too_long: TooLong = "cut_response"
    template: TemplateName = "auto"
    chat_template_kwargs: dict[str, Any] | None = None
    score: Score = "last"
    skip_bad_rows: bool = False
    limit: Count | None = None
    eval_limit: Count | None = None


class SampleSettings(Section):
    """Answers of the policy to the same prompts before and after training, and every so many steps, from the
    same seed each time; a number stands for ``prompts`` alone. Prompts are held-out ones, where there are.

    ``judge`` is as ``prefero evaluate --judge`` takes it: ``module:function``, a reward model, or the folder
    of a run. Its win rate ``against`` the answers of the start model, or the chosen responses of the data, is
    logged as ``eval_samples/win_rate``, which ``training.metric_for_best_model`` may name.
    """

    prompts: Annotated[int, Field(ge=0, le=MOST)] = Field(
        default=4, description="Prompts that are answered before and after training, for the report."
    )
    every: Steps | None = Field(
        default=None, description="Steps between two answers; below 1, a share of all steps; null is none."
    )
    max_new_tokens: Count | None = Field(
        default=None, description="Longest answer in tokens; by default 128, or half of max_length."
    )
    temperature: NotNegative = Field(
        default=0.0, description="Of the answers; 0 is the likeliest token each time."
    )
    judge: str | None = Field(
        default=None, description="What judges them: module:function, a reward model, or a run's folder."
    )
    against: Literal["start", "chosen"] = Field(
        default="start", description="What a win rate is against: the start model, or the chosen responses."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"prompts": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.prompts and (idle := self.given_values().keys() - {"prompts"}):
            raise ValueError(f"there are no samples.prompts to answer: leave out {', '.join(sorted(idle))}")
        if self.judge is None and self.against != "start":
            raise ValueError("samples.against says what a win rate is against: give samples.judge too")
        return self

    def given_values(self) -> dict[str, Any]:
        """The settings that are not at their default."""
        return self.model_dump(exclude_defaults=True)

    @classmethod
    def given(cls, value: Any) -> SampleSettings:
        """Settings as Python gives them: a number of prompts, a mapping or None, which is no prompts. Raises
        :class:`PreferoError`."""
        try:
            return cls.model_validate(0 if value is None else value)
        except ValidationError as error:
            raise PreferoError("; ".join(problems(error, cls, whole="samples"))) from None


class TrainConfig(Section):
    """A recipe. ``model``, ``data``, ``objective`` and ``reference`` may be given as a name alone.

    ``models`` are further models that the objective names (``previous``, ``guide``), each as ``reference``.
    """

    model: ModelSource = Field(description="a hub name or the folder of a model")
    data: DataSection = Field(description="a file, a folder or a hub name of preference data")
    objective: dict[str, Any] = Field(default_factory=lambda: {"method": "dpo"})
    reference: ReferenceSpec = ReferenceSpec()
    models: dict[str, ReferenceSpec] = Field(default_factory=dict)
    training: Settings = Settings()
    samples: SampleSettings = SampleSettings()
    output: Path = Field(description="the folder that the run is written to")
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        long = dict(value)
        for name, key in (("model", "name"), ("data", "train"), ("objective", "method")):
            if isinstance(long.get(name), str | Path):
                long[name] = {key: str(long[name])}
        if isinstance(long.get("objective"), Mapping):
            long["objective"] = {"method": "dpo", **long["objective"]}
        long = in_their_places(long, _warn)
        if isinstance(long.get("training"), Mapping):
            long["training"] = read_settings(long["training"], "training.")
        return long

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """The recipe in a mapping.

        Raises :class:`PreferoError` for an unknown key, naming the nearest one that is known, and for a value
        of the wrong kind or out of range, naming its place.
        """
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise PreferoError("; ".join(problems(error, cls, home=home_of))) from None

    def as_dict(self) -> dict[str, Any]:
        """The recipe in full, as JSON has it; of ``training`` what is given or has a default of ours."""
        record = self.model_dump(mode="json")
        kept = OWN | self.training.model_fields_set
        record["training"] = {name: value for name, value in record["training"].items() if name in kept}
        return record


def home_of(key: str) -> str:
    """A clause that says where a key belongs that is not known where it stands, or nothing."""
    if key in OTHER_NAMES:
        return f": it is {OTHER_NAMES[key]}"
    sections = sections_in(TrainConfig)
    for section in ("training", *sections):
        if key in fields_of(sections[section]):
            return f"; it belongs in {section}: {section}.{key}"
    old = difflib.get_close_matches(key, OLD_NAMES, n=1)
    return f"; did you mean training.{OLD_NAMES[old[0]]}?" if old else ""
