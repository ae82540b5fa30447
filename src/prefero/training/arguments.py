"""What a training run is told: the arguments of ``transformers`` with the defaults of preference learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from prefero.errors import PreferoError, nearest

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
