"""What a trainer is made of, prepared so that mistakes show early: configuration, data, then the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import set_seed

from prefero.errors import PreferoError
from prefero.models.kind import Dataset, Kind, Reading
from prefero.models.loading import ModelSource, first_line, kind_of
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import Needs, compared_models, dry_run, model_names, signals_of
from prefero.reference.providers import Demand, ReferenceSpec, adapters_of, chosen_kind
from prefero.training.batches import StepPlan
from prefero.training.config import ADAPTER_LEARNING_RATE, FULL_LEARNING_RATE, PreferenceArguments

Reference = str | ReferenceSpec | None

HeldOut = Dataset | dict[str, Dataset] | None


@dataclass(frozen=True)
class Ingredients:
    """Everything that a trainer needs and that can be had before it is one."""

    args: PreferenceArguments
    objective: Objective
    needs: Needs
    kind: Kind
    policy: nn.Module
    layout: str
    tokens_per_row: int
    train: Dataset | None
    eval: HeldOut
    demands: Mapping[str, Demand]
    specs: Mapping[str, ReferenceSpec]

    @property
    def method(self) -> str:
        return self.objective.key or type(self.objective).__name__

    def plan(self, data: Dataset, *, shuffle: bool) -> StepPlan:
        """How these examples meet in steps, on the processes that there are."""
        args = self.args
        steps = -(-len(data) // args.examples_per_step)
        epochs = -(-args.max_steps // steps) if args.max_steps > 0 else -int(-args.num_train_epochs // 1)
        return StepPlan(
            len(data),
            self.kind.rows(data, self.layout),
            examples_per_step=args.examples_per_step,
            tokens_per_row=self.tokens_per_row,
            world=args.world_size,
            epochs=epochs,
            seed=args.seed if args.data_seed is None else args.data_seed,
            shuffle=shuffle,
        )


def prepared(
    model: str | ModelSource | nn.Module,
    train_dataset: Any,
    eval_dataset: Any,
    objective: str | Mapping[str, Any] | Objective,
    args: PreferenceArguments,
    *,
    kind: str | Kind = "auto",
    processor: Any = None,
    reference: Reference = "auto",
    models: Mapping[str, Reference] | None = None,
    peft_config: Any = None,
) -> Ingredients:
    """Raises :class:`PreferoError` for whatever does not fit together. Data are read before the model is
    loaded."""
    objective = objective if isinstance(objective, Objective) else from_config(objective)
    needs = dry_run(objective)
    given: Any = ModelSource(model) if isinstance(model, str) else model
    kind = kind_of(kind, given, processor)
    kind.check(needs)
    specs = {name: _spec(one) for name, one in {**(models or {}), "reference": reference}.items()}
    specs |= {name: _trained(specs.get(name, ReferenceSpec())) for name in objective.trains}
    demands = {
        name: Demand(signals_of(needs, name), name in compared_models(needs), needs.exact, kind.redrawn)
        for name in sorted(model_names(needs))
    }

    def read(source: Any, split: str) -> Dataset:
        return kind.read(source, needs, Reading(split, args.max_length, args.seed, objective.key or ""))

    train = None if train_dataset is None else read(train_dataset, "train")
    held_out = _each(eval_dataset, lambda source: read(source, "test"))
    policy = kind.load() if isinstance(given, ModelSource) else given
    if peft_config is not None:
        set_seed(args.seed)  # new adapters are drawn
        policy = _with_adapters(policy, peft_config)
    _refuse_impossible_processes(policy, args)
    adapters = adapters_of(policy)
    for one, demand in demands.items():
        chosen_kind(one, specs.get(one, ReferenceSpec()), demand, adapters)
    if args.learning_rate is None:
        args.learning_rate = ADAPTER_LEARNING_RATE if adapters.there else FULL_LEARNING_RATE
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = kind.leaves_out(policy)
    layout = kind.adapt(policy, args.layout, keep_dropout=args.dropout)
    budget = args.tokens_per_row or kind.budget(layout, args.device)
    return Ingredients(args, objective, needs, kind, policy, layout, budget, train, held_out, demands, specs)


def _with_adapters(model: nn.Module, adapter: Any) -> nn.Module:
    """The model with the adapters of a PEFT configuration, its own weights fixed."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    try:
        return get_peft_model(model, adapter)
    except ValueError as error:
        raise PreferoError(f"the adapters do not fit this model: {first_line(error)}") from None


def all_of(held_out: HeldOut) -> list[Dataset]:
    if held_out is None:
        return []
    return list(held_out.values()) if isinstance(held_out, dict) else [held_out]


def _each(source: Any, read: Callable[[Any], Dataset]) -> HeldOut:
    if source is None:
        return None
    return {name: read(one) for name, one in source.items()} if isinstance(source, dict) else read(source)


def _spec(reference: Reference) -> ReferenceSpec:
    if isinstance(reference, ReferenceSpec):
        return reference
    return ReferenceSpec.named(reference)


def _trained(spec: ReferenceSpec) -> ReferenceSpec:
    """Of a model that the objective trains, unless it is said to be another one."""
    return replace(spec, kind="trained") if spec.kind == "auto" and spec.model is None else spec


def _refuse_impossible_processes(policy: nn.Module, args: PreferenceArguments) -> None:
    """Every process has to see rows of its own, and a row whole."""
    parallel = args.parallelism_config
    sizes = (
        [getattr(parallel, name, 1) or 1 for name in ("tp_size", "cp_size", "sp_size")] if parallel else []
    )
    if any(size > 1 for size in sizes) or (getattr(policy, "_tp_size", None) or 1) > 1:
        raise PreferoError(
            "tensor, context and sequence parallelism would cut the rows that examples share: shard the "
            "model with FSDP or DeepSpeed instead"
        )
    if args.parallel == "fsdp" and args.world_size == 1:
        raise PreferoError(
            "training.parallel=fsdp shards the model over processes, and there is one: start with "
            "torchrun --nproc-per-node N -m prefero train …, or leave training.parallel out"
        )
    if args.n_gpu > 1:
        warnings.warn(
            f"one process uses one GPU, and {args.n_gpu} are visible: start with torchrun or accelerate "
            "launch to use all of them",
            stacklevel=3,
        )
        args._n_gpu = 1
