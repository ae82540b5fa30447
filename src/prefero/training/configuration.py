"""The recipe of a run, typed: what a YAML file or a mapping may say, and what it says by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
    an epoch (:class:`~prefero.training.arguments.PreferenceArguments`);
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
    for name, field in section.model_fields.items():
        for option in (field.annotation, *get_args(field.annotation)):
            if isinstance(option, type) and issubclass(option, Section):
                found[name] = option
    return found


def _refuse_unknown_arguments(arguments: Mapping[str, Any]) -> None:
    if not arguments:
        return
    from prefero.training.arguments import PreferenceArguments

    known = {field.name for field in fields(PreferenceArguments)}
    for name in arguments:
        if name not in known:
            raise PreferoError(
                f"training.arguments has {name!r}, which is no argument of transformers.TrainingArguments"
                f"{nearest(name, known)}"
            )
