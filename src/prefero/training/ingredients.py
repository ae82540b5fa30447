"""What a trainer is made of, prepared so that mistakes show early: configuration, data, then the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed

from prefero.data.packing import unique_tokens
from prefero.data.tokenize import TokenDataset
from prefero.errors import PreferoError
from prefero.models.language import adapt
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import Needs, dry_run
from prefero.reference.resolve import Demand, ReferenceSpec, adapters_of, chosen_kind
from prefero.training.arguments import ADAPTER_LEARNING_RATE, FULL_LEARNING_RATE, PreferenceArguments
from prefero.training.plan import PackedRows, PaddedRows, Rows, StepPlan
from prefero.training.preparation import (
    ModelSource,
    length_limit,
    refuse_long_ids,
    token_dataset,
    with_adapters,
)
from prefero.training.scoring import compared_models, model_names, signals_of

Reference = str | ReferenceSpec | None

EvalTokens = TokenDataset | dict[str, TokenDataset] | None


@dataclass(frozen=True)
class Ingredients:
    """Everything that a trainer needs and that can be had before it is one."""

    args: PreferenceArguments
    objective: Objective
    needs: Needs
    tokenizer: PreTrainedTokenizerBase
    policy: nn.Module
    name: str
    layout: str
    tokens_per_row: int
    train: TokenDataset | None
    eval: EvalTokens
    demands: Mapping[str, Demand]
    specs: Mapping[str, ReferenceSpec]

    @property
    def method(self) -> str:
        return self.objective.key or type(self.objective).__name__

    @property
    def text_config(self) -> Any:
        policy: Any = self.policy
        return policy.config.get_text_config()

    def plan(self, tokens: TokenDataset, *, shuffle: bool) -> StepPlan:
        """How these examples meet in steps, on the processes that there are."""
        args = self.args
        steps = -(-len(tokens) // args.examples_per_step)
        epochs = -(-args.max_steps // steps) if args.max_steps > 0 else -int(-args.num_train_epochs // 1)
        return StepPlan(
            len(tokens),
            _rows(tokens, self.layout),
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
    tokenizer: PreTrainedTokenizerBase | None = None,
    reference: Reference = "auto",
    models: Mapping[str, Reference] | None = None,
    peft_config: Any = None,
) -> Ingredients:
    """Raises :class:`PreferoError` for whatever does not fit together. Data are read before the model is
    loaded."""
    objective = objective if isinstance(objective, Objective) else from_config(objective)
    needs = dry_run(objective)
    specs = {name: _spec(one) for name, one in {**(models or {}), "reference": reference}.items()}
    specs |= {name: _trained(specs.get(name, ReferenceSpec())) for name in objective.trains}
    demands = {
        name: Demand(signals_of(needs, name), name in compared_models(needs), needs.exact)
        for name in sorted(model_names(needs))
    }
    given: Any = ModelSource(model) if isinstance(model, str) else model
    config = given.config() if isinstance(given, ModelSource) else given.config
    name = given.name if isinstance(given, ModelSource) else str(getattr(config, "_name_or_path", ""))
    if tokenizer is None:
        tokenizer = (given if isinstance(given, ModelSource) else ModelSource(name)).tokenizer()

    def read(source: Any, split: str) -> TokenDataset:
        reading = {} if isinstance(source, TokenDataset) else {"split": split}
        tokens = token_dataset(
            source,
            tokenizer,
            needs,
            max_length=length_limit(args.max_length, config),
            seed=args.seed,
            method=objective.key or "",
            **reading,
        )
        refuse_long_ids(tokens, getattr(config.get_text_config(), "vocab_size", None))
        return tokens

    train = None if train_dataset is None else read(train_dataset, "train")
    held_out = _each(eval_dataset, lambda source: read(source, "test"))
    policy = given.load() if isinstance(given, ModelSource) else given
    if peft_config is not None:
        set_seed(args.seed)  # new adapters are drawn
        policy = with_adapters(policy, peft_config)
    _refuse_impossible_processes(policy, args)
    adapters = adapters_of(policy)
    for one, demand in demands.items():
        chosen_kind(one, specs.get(one, ReferenceSpec()), demand, adapters)
    if args.learning_rate is None:
        args.learning_rate = ADAPTER_LEARNING_RATE if adapters.there else FULL_LEARNING_RATE
    if args.ddp_find_unused_parameters is None:
        # Only parts that no text reaches (a vision tower) and experts can be left out of a step.
        text = config.get_text_config()
        args.ddp_find_unused_parameters = text is not config or _has_experts(text)
    layout = adapt(policy, layout=args.layout, keep_dropout=args.dropout)
    budget = args.tokens_per_row or default_tokens_per_row(layout, args.device)
    return Ingredients(
        args, objective, needs, tokenizer, policy, name, layout, budget, train, held_out, demands, specs
    )


def default_tokens_per_row(layout: str, device: torch.device) -> int:
    """A dense mask grows with the square of the row; a GPU wants longer rows than a CPU."""
    if layout == "dense":
        return 1024
    return 4096 if device.type == "cpu" else 16384


def all_of(tokens: EvalTokens) -> list[TokenDataset]:
    if tokens is None:
        return []
    return list(tokens.values()) if isinstance(tokens, dict) else [tokens]


def _each(source: Any, read: Callable[[Any], TokenDataset]) -> EvalTokens:
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


def _rows(tokens: TokenDataset, layout: str) -> Rows:
    if layout != "padded":
        return PackedRows([unique_tokens(example) for example in tokens])
    cells = [[*example.cells, *(c for view in example.views.values() for c in view)] for example in tokens]
    return PaddedRows(
        [len(some) for some in cells],
        [max(len(cell.context) + len(cell.response) for cell in some) for some in cells],
    )


def _has_experts(config: Any) -> bool:
    return any(
        getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")
    )


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
