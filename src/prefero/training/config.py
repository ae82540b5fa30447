"""The recipe of a run, typed: what a YAML file or a mapping may say, and what it says by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from transformers import TrainingArguments

from prefero.errors import PreferoError, nearest

ReferenceKind = Literal["auto", "none", "frozen", "cached", "adapters_off", "checkpoint", "moving", "trained"]


class Section(BaseModel):
    """A part of a recipe; keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class LoraSection(Section):
    """Low-rank adapters (Hu et al., 2021) in place of full fine-tuning."""

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | list[str] | None = None
    modules_to_save: list[str] | None = None


class ModelSection(Section):
    """``name`` is a hub name or a folder. ``dtype`` is what the weights are kept in. ``kind`` is which kind
    of model it is (:mod:`prefero.kinds`), by default what its configuration tells, and ``options`` are those
    of the kind."""

    name: str
    kind: str = "auto"
    options: dict[str, Any] = Field(default_factory=dict)
    tokenizer: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    attention: Literal["sdpa", "eager", "flex_attention"] | None = None
    quantization: Literal["4bit", "8bit"] | None = None
    lora: LoraSection | None = None
    trust_remote_code: bool = False

    @model_validator(mode="before")
    @classmethod
    def _lora_by_name(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("lora"), bool):
            return {**value, "lora": {} if value["lora"] else None}
        return value


class DataSection(Section):
    """``train`` and ``eval`` are files, folders or hub names; a number as ``eval`` holds out that share."""

    train: str
    eval: str | float | None = None
    split: str = "train"
    eval_split: str = "test"
    format: str = "auto"
    max_length: int | None = Field(default=None, ge=2)
    skip_bad_rows: bool = False
    limit: int | None = Field(default=None, ge=1)
    eval_limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _share(self) -> DataSection:
        if isinstance(self.eval, float) and not 0 < self.eval < 1:
            raise ValueError("a number here is the share of the examples to hold out, between 0 and 1")
        return self


class ReferenceSection(Section):
    """Who the policy is measured against; ``cache`` names the folder of the disk cache. ``every`` counts
    optimizer steps: between updates of a moving reference, and between comparisons of a trained model with
    the policy (0 is never)."""

    kind: ReferenceKind = "auto"
    model: str | None = None
    alpha: float = Field(default=0.6, ge=0, le=1)
    every: int | None = Field(default=512, ge=0)
    cache: Path | None = None
    learning_rate: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _moves(self) -> ReferenceSection:
        if self.kind == "moving" and not self.every:
            raise ValueError("a moving reference is updated every so many optimizer steps, at least 1")
        return self

    @model_validator(mode="after")
    def _checkpoint_has_a_model(self) -> ReferenceSection:
        if self.model and self.kind in ("auto", "cached"):
            return self
        if (self.kind == "checkpoint") != bool(self.model):
            raise ValueError(
                "'model' names the checkpoint to measure against, and only kind: checkpoint or cached has one"
            )
        return self


class TrainingSection(Section):
    """How to train. ``learning_rate`` is by default 5e-7, with adapters 1e-5; ``objective_learning_rate``, by
    default the same, is that of what the objective learns (heads), which often wants a larger one;
    ``extrapolation`` is the momentum between rounds of ``extrapolation_every`` optimizer steps, by default
    an epoch (:class:`~prefero.training.config.PreferenceArguments`);
    ``warmup`` below 1 is a share of all steps; ``samples`` prompts are answered before and after;
    ``arguments`` are handed to :class:`transformers.TrainingArguments` as they are."""

    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    objective_learning_rate: float | None = Field(default=None, gt=0)
    objective_weight_decay: float = Field(default=0.0, ge=0)
    extrapolation: float | None = Field(default=None, ge=0, lt=1)
    extrapolation_every: int | None = Field(default=None, ge=1)
    schedule: str = "cosine"
    warmup: float = Field(default=0.1, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    optimizer: str | None = None
    examples_per_step: int = Field(default=32, ge=1)
    tokens_per_row: int | None = Field(default=None, ge=1)
    layout: Literal["auto", "trees", "dense", "flex", "padded"] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    activation_checkpointing: bool = False
    dropout: bool = False
    parallel: Literal["auto", "fsdp"] = "auto"
    logging_steps: int = Field(default=10, ge=1)
    eval_steps: int | None = Field(default=None, ge=1)
    save_steps: int | None = Field(default=500, ge=1)
    save_total_limit: int | None = Field(default=2, ge=1)
    samples: int = Field(default=4, ge=0)
    resume: bool | str = False
    overwrite: bool = False
    arguments: dict[str, Any] = Field(default_factory=dict)


class TrainConfig(Section):
    """A recipe. ``model``, ``data``, ``objective`` and ``reference`` may be given as a name alone.

    ``models`` are further models that the objective names (``previous``, ``guide``), each as ``reference``.
    """

    model: ModelSection
    data: DataSection
    objective: dict[str, Any] = Field(default_factory=lambda: {"method": "dpo"})
    reference: ReferenceSection = ReferenceSection()
    models: dict[str, ReferenceSection] = Field(default_factory=dict)
    training: TrainingSection = TrainingSection()
    output: Path
    seed: int = Field(default=0, ge=0)

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
        if "reference" in long:
            long["reference"] = _long_reference(long["reference"])
        if isinstance(long.get("models"), Mapping):
            long["models"] = {name: _long_reference(one) for name, one in long["models"].items()}
        return long

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """The recipe in a mapping.

        Raises :class:`PreferoError` for an unknown key, naming the nearest one that is known, and for a value
        of the wrong kind or out of range, naming its place.
        """
        try:
            config = cls.model_validate(settings)
        except ValidationError as error:
            raise PreferoError("; ".join(_explained(error))) from None
        _refuse_unknown_arguments(config.training.arguments)
        return config

    def as_dict(self) -> dict[str, Any]:
        """The recipe in full, as JSON has it."""
        return self.model_dump(mode="json")


def _long_reference(value: Any) -> Any:
    if value is None or value is False:
        return {"kind": "none"}
    if isinstance(value, str):
        return {"kind": value} if value in get_args(ReferenceKind) else {"kind": "checkpoint", "model": value}
    return value


def _explained(error: ValidationError) -> Iterator[str]:
    problems = error.errors(include_url=False)
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    for problem in unknown or problems:  # a misspelled key is often what another key is missing for
        place = [str(part) for part in problem["loc"]]
        given = problem["input"]
        match problem["type"]:
            case "extra_forbidden":
                yield _unknown_key(place)
            case "missing":
                key = ".".join(place)
                yield f"the recipe lacks {key}: {_MISSING.get(key, 'it has no default')}"
            case _:
                message = problem["msg"].removeprefix("Value error, ")
                yield f"{'.'.join(place)} is {given!r}: {message[0].lower()}{message[1:]}"


_MISSING = {
    "model": "a hub name or the folder of a model",
    "data": "a file, a folder or a hub name of preference data",
    "output": "the folder that the run is written to",
}


def _unknown_key(place: list[str]) -> str:
    section: type[Section] = TrainConfig
    for part in place[:-1]:
        section = _sections(section).get(part, section)
    key, known = place[-1], section.model_fields
    here = ".".join(place[:-1]) or "a recipe"
    hint = nearest(key, known)
    if not hint:
        sections = _sections(TrainConfig)
        # most keys without a place are meant for the run
        home = next((name for name in ("training", *sections) if key in sections[name].model_fields), None)
        hint = f"; it belongs in {home}: {home}.{key}" if home else f" (it knows {', '.join(known)})"
    return f"{here} has no key {key!r}{hint}"


def _sections(section: type[Section]) -> dict[str, type[Section]]:
    """The sections inside one, by key."""
    found = {}
    for name, info in section.model_fields.items():
        for option in (info.annotation, *get_args(info.annotation)):
            if isinstance(option, type) and issubclass(option, Section):
                found[name] = option
    return found


def _refuse_unknown_arguments(arguments: Mapping[str, Any]) -> None:
    if not arguments:
        return
    known = {field.name for field in fields(PreferenceArguments)}
    for name in arguments:
        if name not in known:
            raise PreferoError(
                f"training.arguments has {name!r}, which is no argument of transformers.TrainingArguments"
                f"{nearest(name, known)}"
            )


FULL_LEARNING_RATE = 5e-7
ADAPTER_LEARNING_RATE = 1e-5


@dataclass
class PreferenceArguments(TrainingArguments):
    """:class:`transformers.TrainingArguments` and how steps are planned.

    A step takes ``examples_per_step`` examples, whatever the number of rows and processes; rows and gradient
    accumulation follow from ``tokens_per_row``. ``learning_rate`` is by default 5e-7 for full fine-tuning and
    1e-5 for adapters; ``objective_learning_rate``, the same by default, is that of what the objective itself
    learns, such as a head, which starts from nothing and mostly wants a larger one.

    ``extrapolation`` is the momentum α of accelerated preference optimization (He et al., 2024, arXiv
    2410.06293, reported with 0.3): after each round of ``extrapolation_every`` optimizer steps, by default an
    epoch, θ ← θ̂ + α (θ̂ − θ̂_previous), between iterates before extrapolation. It goes with a reference of
    ``kind: moving, alpha: 1`` and the same ``every``, which is then the extrapolated policy.

    Raises :class:`PreferoError` for batch sizes and accumulation steps in the manner of other trainers.
    """

    examples_per_step: int = field(default=32, metadata={"help": "Examples in an optimizer step."})
    tokens_per_row: int | None = field(
        default=None,
        metadata={"help": "Most tokens in one forward pass; by default what suits device and layout."},
    )
    layout: Literal["auto", "trees", "dense", "flex", "padded"] = field(
        default="auto", metadata={"help": "How examples share a row; 'padded' is one response a row."}
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Most tokens of a prompt with its response; by default 1024, or the context if less."
        },
    )
    dropout: bool = field(default=False, metadata={"help": "Keep the model's dropout on during training."})
    parallel: Literal["auto", "fsdp"] = field(
        default="auto",
        metadata={
            "help": "'fsdp' shards the model over the processes; 'auto' is what the launcher says, or DDP."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace a run that the output folder holds."})

    objective_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Of what the objective itself learns; by default the policy's learning_rate."},
    )
    objective_weight_decay: float = field(
        default=0.0, metadata={"help": "Of what the objective itself learns."}
    )

    extrapolation: float | None = field(
        default=None,
        metadata={"help": "Momentum between rounds, from 0 to below 1; by default there is none."},
    )
    extrapolation_every: int | None = field(
        default=None, metadata={"help": "Optimizer steps of a round; by default an epoch."}
    )

    learning_rate: float | None = None  # type: ignore[assignment]
    num_train_epochs: float = 1.0
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up; below 1, a share of all."})
    logging_steps: float = 10
    save_total_limit: int | None = 2
    seed: int = 0
    logging_nan_inf_filter: bool = False
    remove_unused_columns: bool = False
    per_device_train_batch_size: int = 1
    per_device_eval_batch_size: int = 1

    @property
    def rounds(self) -> list[float | None] | None:
        """What a run and one that goes on from it share of the extrapolation."""
        return None if self.extrapolation is None else [self.extrapolation, self.extrapolation_every]

    @classmethod
    def given(cls, args: PreferenceArguments | None, settings: Mapping[str, Any]) -> PreferenceArguments:
        """The arguments, given whole or one by one. Raises :class:`PreferoError` for unknown ones."""
        known = {field.name for field in fields(cls) if field.init}
        for name in settings:
            if name not in known:
                raise PreferoError(f"PreferenceTrainer has no argument {name!r}{nearest(name, known)}")
        if args is None:
            return cls(**settings)
        if settings:
            raise PreferoError(f"{', '.join(settings)}: give either args or single settings, not both")
        return args

    def __post_init__(self) -> None:
        for name in (
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
        ):
            if getattr(self, name) != 1:
                raise PreferoError(
                    f"{name}={getattr(self, name)} cannot be set: a step is planned from examples_per_step "
                    f"(now {self.examples_per_step}) and tokens_per_row, on any number of processes"
                )
        for name, least in (
            ("examples_per_step", 1),
            ("tokens_per_row", 1),
            ("max_length", 2),
            ("extrapolation_every", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise PreferoError(f"{name} is {value}, it has to be at least {least}")
        if self.objective_learning_rate is not None and self.objective_learning_rate <= 0:
            raise PreferoError(
                f"objective_learning_rate is {self.objective_learning_rate}, it has to be greater than 0"
            )
        if self.extrapolation is not None and not 0 <= self.extrapolation < 1:
            raise PreferoError(
                f"extrapolation is {self.extrapolation}, it has to be at least 0 and less than 1"
            )
        if self.extrapolation_every is not None and self.extrapolation is None:
            raise PreferoError(
                "extrapolation_every says how long a round is, but there is no extrapolation: set it too"
            )
        if not torch.accelerator.is_available():
            # Unless the CPU is asked for, processes on it do not see each other, and bfloat16 is refused.
            self.use_cpu = True
        super().__post_init__()
        if self.save_strategy == "best" and not self.metric_for_best_model:
            raise PreferoError(
                "save_strategy='best' needs metric_for_best_model, such as 'rewards/accuracies'"
            )
