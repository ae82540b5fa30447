"""Everything that a trainer needs and that can be had before it is one: mistakes show here, early.

The objective is read first, then the data as it needs them, then the model is loaded.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import set_seed

from prefero.data.chat import Writing
from prefero.data.examples import leaked
from prefero.errors import PreferoError, number_of
from prefero.models.kind import Dataset, Item, Kind, Reading
from prefero.models.loading import (
    MERGED,
    PEFT_ASKS_BY_OLD_NAME,
    ModelSource,
    adapter_layers,
    first_line,
    kind_of,
    rows_of_tokens,
)
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import Needs, compared_models, dry_run, model_names, signals_of
from prefero.objectives.registry import drawn_in_rounds
from prefero.reference.providers import (
    Adapters,
    Demand,
    ReferenceKind,
    ReferenceSpec,
    adapters_of,
    chosen_kind,
)
from prefero.training import identity
from prefero.training.batches import StepPlan
from prefero.training.config import (
    ADAPTER_LEARNING_RATE,
    FULL_LEARNING_RATE,
    MOST_EPOCHS,
    PreferenceArguments,
)
from prefero.training.rounding import rounding_warning

logger = logging.getLogger(__name__)

_UNREAD = "not used: %s; the models that the objective reads beside the policy: %s"
_ROUNDS = (
    "%s is a method of rounds: responses are drawn from the policy while it trains, and a run draws none. "
    "Rows that stay as they are make it another method, unless they were drawn from the model that this run "
    "starts from: train on them for a little, and draw again"
)

Reference = str | Mapping[str, Any] | ReferenceSpec | nn.Module | None


@dataclass(frozen=True)
class Prepared:
    """The parts of a training that fit together.

    ``needs`` are the objective's, found by its one dry run. ``held_out`` maps names to data sets; a single
    one has the name ``""``. ``packing`` is how the policy's examples share a micro-batch. ``demands`` and
    ``specs`` say of the other models that the objective reads what is asked of them, and who they are.
    ``loaded`` are those of them that were given as models, by the name that their spec has for the model.
    ``balance`` is the coefficient of the loss that balances the policy's experts. ``served`` are the kinds of
    reference that serve these models, and ``adapters`` says what became of adapters that the model had.
    """

    args: PreferenceArguments
    objective: Objective
    method: str
    needs: Needs
    kind: Kind
    policy: nn.Module
    packing: str
    tokens_per_row: int
    train: Dataset[Item] | None
    held_out: Mapping[str, Dataset[Item]]
    writing: Writing
    demands: Mapping[str, Demand]
    specs: Mapping[str, ReferenceSpec]
    loaded: Mapping[str, nn.Module]
    balance: float
    served: Mapping[str, ReferenceKind]
    adapters: str

    def plan(self, data: Dataset[Item], *, shuffle: bool) -> StepPlan:
        """How these examples meet in steps, on the processes that there are."""
        args = self.args
        steps = math.ceil(len(data) / args.examples_per_step)
        epochs = args.max_steps / steps if args.max_steps > 0 else args.num_train_epochs
        if epochs > MOST_EPOCHS:
            raise PreferoError(
                f"training.max_steps is {args.max_steps}, which is {epochs:,.0f} epochs of these data: at "
                f"most {MOST_EPOCHS:,} can be planned"
            )
        return StepPlan(
            len(data),
            self.kind.batching(data, self.packing),
            examples_per_step=args.examples_per_step,
            tokens_per_row=self.tokens_per_row,
            world=args.world_size,
            epochs=math.ceil(epochs),
            seed=args.seed if args.data_seed is None else args.data_seed,
            shuffle=shuffle,
        )


def prepare(
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
    same: Callable[[Mapping[str, Any]], None] | None = None,
) -> Prepared:
    """Build the objective, read the data, and load the model, in this order. ``same`` is called with parts
    of the run's identity (:meth:`~prefero.training.resuming.ResumingTrainer.identity`) once they are known.

    Raises :class:`PreferoError` for whatever does not fit together.
    """
    objective = objective if isinstance(objective, Objective) else from_config(objective)
    if same is not None:
        same({"objective": identity.of_objective(objective)})
    needs = dry_run(objective)
    given: Any = ModelSource(model) if isinstance(model, str) else model
    kind = kind_of(kind, given, processor)
    kind.check(needs)
    if train_dataset is not None and args.process_index == 0 and drawn_in_rounds(objective):
        logger.warning(_ROUNDS, objective.key)
    others = {**(models or {}), "reference": reference}
    loaded = {_given(name, other): other for name, other in others.items() if isinstance(other, nn.Module)}
    specs = specs_of(others, objective)
    demands = demands_of(needs, kind)
    unread = sorted({*(models or ())} - demands.keys() - {*objective.trains})
    if unread and args.process_index == 0:
        known = ", ".join(demands) or "none"
        logger.warning(_UNREAD, ", ".join(f"models.{name}" for name in unread), known)

    date = None if args.overwrite else _first_date(Path(args.output_dir or "."))
    writing = Writing(args.template, args.chat_template_kwargs or {}, date or dt.date.today(), args.score)

    said: set[str] = set()

    def read(source: Any, split: str) -> Dataset[Item]:
        method = objective.key or ""
        reading = Reading(split, args.max_length, args.seed, method, args.too_long, writing)
        data = kind.read(source, needs, reading)
        for note in data.summary.notes if args.process_index == 0 else ():
            if note not in said:
                logger.warning(note)
            said.add(note)
        return data

    train = None if train_dataset is None else read(train_dataset, "train")
    if train is not None and same is not None:
        same({"data": identity.of_data(train)})
    named = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
    held_out = {name: read(source, "test") for name, source in named.items() if source is not None}
    for name, data in held_out.items() if args.process_index == 0 else ():
        if leak := _leak(train, data, name):
            logger.warning(leak)
    policy = kind.load() if isinstance(given, ModelSource) else given
    _refuse_policy(policy, others)
    if peft_config is None and isinstance(given, ModelSource) and given.lora is not None:
        rows = rows_of_tokens(policy, list(given.new_tokens.values()))
        peft_config = given.lora.config(kind, rows)
    if peft_config is not None:
        if isinstance(given, ModelSource) and given.base is not None:
            _keep_merged(policy, kind, args)
        policy = _with_adapters(policy, peft_config, args.seed)
    if train is not None and not any(weight.requires_grad for weight in policy.parameters()):
        raise PreferoError(
            "the model has nothing to train: all its weights are fixed. Load adapters with "
            "PeftModel.from_pretrained(model, folder, is_trainable=True), or name their folder as the model; "
            "of a whole model, set requires_grad where it is to be trained"
        )
    _check_processes(policy, args)
    adapters = adapters_of(policy)
    served = {
        name: chosen_kind(name, specs.get(name, ReferenceSpec()), demand, adapters)
        for name, demand in demands.items()
    }
    if isinstance(given, ModelSource) and given.add_tokens and args.process_index == 0:
        logger.warning(_added(given))
    earlier = ""
    if isinstance(given, ModelSource) and given.base is not None:
        earlier = f"those of {given.name} are merged into {given.base.name}"
        if given.continues:
            earlier = _continued(given, served.get("reference"), adapters)
            if args.process_index == 0:
                logger.warning(earlier)
    if args.learning_rate is None:
        published = objective.learning_rate
        if published is not None and args.process_index == 0:
            logger.warning("learning_rate is %g, as published with the settings of the method", published)
        args.learning_rate = published or (ADAPTER_LEARNING_RATE if adapters.there else FULL_LEARNING_RATE)
    if train is not None and args.process_index == 0:
        told = rounding_warning(policy, args.learning_rate, str(getattr(args.optim, "value", args.optim)))
        if told:
            logger.warning(told)
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = kind.leaves_out(policy)
    balance, left_out = kind.balance(policy)
    if balance and objective.update == "comparison_oracle":
        balance, left_out = (
            0.0,
            f"the balancing loss of the router is no part of {objective.key}: it is left out",
        )
    if left_out and args.process_index == 0:
        logger.warning(left_out)
    packing = kind.adapt(policy, args.layout, keep_dropout=args.dropout)
    budget = args.tokens_per_row or kind.budget(packing, args.device)
    method = objective.key or type(objective).__name__
    preview = None if train is None else kind.preview(train, 1)
    if preview is not None and args.process_index == 0:
        logger.warning(preview.first_row())
    return Prepared(
        args,
        objective,
        method,
        needs,
        kind,
        policy,
        packing,
        budget,
        train,
        held_out,
        writing,
        demands,
        specs,
        loaded,
        balance,
        served,
        earlier,
    )


def demands_of(needs: Needs, kind: Kind) -> dict[str, Demand]:
    """The demands of an objective on the models besides the policy, by name."""
    return {
        name: Demand(signals_of(needs, name), name in compared_models(needs), needs.exact, kind.redrawn)
        for name in sorted(model_names(needs))
    }


def _first_date(folder: Path) -> dt.date | None:
    """The day on which the run in this folder began: templates that write the date keep it on resuming."""
    try:
        return dt.date.fromisoformat(json.loads((folder / "run.json").read_text(encoding="utf-8"))["date"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def specs_of(models: Mapping[str, Reference], objective: Objective) -> dict[str, ReferenceSpec]:
    """Who the models besides the policy are; one that the objective trains is a trained copy of the policy
    unless it is said to be another model."""
    specs = {
        name: ReferenceSpec(model=_given(name, given))
        if isinstance(given, nn.Module)
        else ReferenceSpec.named(given)
        for name, given in models.items()
    }
    for name in objective.trains:
        spec = specs.get(name, ReferenceSpec())
        if spec.kind == "auto" and spec.model is None:
            specs[name] = replace(spec, kind="trained")
    return specs


def _given(name: str, model: nn.Module) -> str:
    """The name of a model that was given itself, in the place of a checkpoint's."""
    return f"the {type(model).__name__} that was given as {name}"


def _refuse_policy(policy: nn.Module, others: Mapping[str, Reference]) -> None:
    """Raise :class:`PreferoError` for a model beside the policy that has weights which are trained."""
    trained = {id(weight) for weight in policy.parameters() if weight.requires_grad}
    for name, other in others.items():
        if isinstance(other, nn.Module) and any(id(weight) in trained for weight in other.parameters()):
            place = "reference" if name == "reference" else f"models[{name!r}]"
            raise PreferoError(
                f"{place} is the model that is trained, and would change with it: leave it out to measure "
                "against the model as it starts, or give another model"
            )


def _continued(source: ModelSource, reference: str | None, adapters: Adapters) -> str:
    """Say that adapters are trained further, and whether the reference has them too."""
    assert source.base is not None
    told = f"training goes on with the adapters of {source.name} on {source.base.name}"
    if reference == "adapters_off" and not adapters.neutral:
        return f"{told}; the reference is that model without them"
    if reference == "frozen":
        return (
            f"{told}; the reference is the policy as it starts, with these adapters. To measure against the "
            "model without them: reference=adapters_off"
        )
    return told


def _leak(train: Any, held_out: Any, name: str) -> str:
    """Say how many held-out rows have a prompt that is trained on; empty where none has."""
    known, held = getattr(train, "source", ()), getattr(held_out, "source", ())
    prompts, rows = leaked(known, held)
    if not prompts:
        return ""
    return (
        f"held-out data{name and f' {name}'}: {prompts:,} of {number_of(len(held), 'row')} have a prompt "
        f"that is trained on, {rows:,} of these with the same responses, so that what is measured on them "
        "may be memory. Name other data, hold out a share of the training data (data.eval=0.1), or take "
        "these prompts out of it (prefero inspect DATA --eval-data HELD_OUT)"
    )


def _added(source: ModelSource) -> str:
    """Say which tokens are new, and which were there."""
    there = [token for token in source.add_tokens if token not in source.new_tokens]
    told = [f"new tokens, whose rows are trained: {' '.join(source.new_tokens)}"] if source.new_tokens else []
    return "; ".join([*told, *([f"tokens that were there already: {' '.join(there)}"] if there else [])])


def _keep_merged(policy: Any, kind: Kind, args: PreferenceArguments) -> None:
    """Write the model that adapters were merged into to the run's folder: new adapters are adapters on that
    model, which is nowhere else."""
    folder = Path(args.output_dir or ".").absolute() / MERGED
    if args.process_index == 0:
        policy.save_pretrained(folder)
        kind.saved_processor().save_pretrained(folder)
        logger.warning(
            "the model with the earlier adapters merged is in %s; the new ones belong to it. If the run's "
            "folder moves, prefero finds it there, but other programs read this path in adapter_config.json",
            folder,
        )
    policy.name_or_path = policy.config._name_or_path = str(folder)


def _with_adapters(model: nn.Module, adapter: Any, seed: int) -> nn.Module:
    """The model with new adapters of a PEFT configuration, its own weights fixed."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    if adapter_layers(model):
        raise PreferoError(
            "the model has adapters, and peft_config would put others on top: leave it out to train those, "
            "or give model.merge_and_unload()"
        )
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    set_seed(seed)  # adapters are drawn
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", PEFT_ASKS_BY_OLD_NAME, FutureWarning)
            return get_peft_model(model, adapter)
    except ValueError as error:
        raise PreferoError(f"the adapters do not fit this model: {first_line(error)}") from None


def _check_processes(policy: nn.Module, args: PreferenceArguments) -> None:
    """Every process has to see micro-batches of its own, and each of them whole."""
    parallel = args.parallelism_config
    sizes = (
        [getattr(parallel, name, 1) or 1 for name in ("tp_size", "cp_size", "sp_size")] if parallel else []
    )
    if any(size > 1 for size in sizes) or (getattr(policy, "_tp_size", None) or 1) > 1:
        raise PreferoError(
            "tensor, context and sequence parallelism would cut the sequences that examples share: shard the "
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
