"""The identity that a run shares with one that resumes from its checkpoint: each setting must be the same, or
may change, or is compared by what it amounts to, as data by their rows and models by their weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import nn

from prefero.models.kind import Dataset, Item
from prefero.objectives.compare import Objective
from prefero.reference.cache import model_fingerprint
from prefero.reference.providers import References
from prefero.storage import finite
from prefero.training.config import PreferenceArguments
from prefero.training.vocabulary import OLD_PLACES, RECIPE_PLACES

MAY_CHANGE = frozenset({
    "output", "training.overwrite", "training.resume_from_checkpoint",
    "training.max_steps", "training.num_train_epochs",
    "training.tokens_per_row", "training.layout", "training.use_cpu", "training.tf32",
    "training.full_determinism", "training.activation_checkpointing",
    "training.activation_checkpointing_kwargs", "training.torch_empty_cache_steps", "training.torch_compile",
    "training.torch_compile_backend", "training.torch_compile_mode", "training.use_liger_kernel",
    "training.liger_kernel_config",
    "training.logging_strategy", "training.logging_steps", "training.logging_first_step",
    "training.log_on_each_node", "training.logging_nan_inf_filter", "training.log_level",
    "training.log_level_replica", "training.disable_tqdm", "training.report_to", "training.run_name",
    "training.project", "training.trackio_space_id", "training.trackio_bucket_id",
    "training.trackio_static_space_id",
    "training.eval_strategy", "training.eval_steps", "training.eval_delay", "training.eval_on_start",
    "training.save_strategy", "training.save_steps", "training.save_total_limit", "training.save_only_model",
    "training.save_on_each_node", "training.load_best_model_at_end",
    "training.early_stopping_patience", "training.early_stopping_threshold",
    "training.restore_callback_states_from_checkpoint",
    "training.push_to_hub", "training.hub_token", "training.hub_private_repo", "training.hub_model_id",
    "training.hub_strategy", "training.hub_always_push", "training.hub_revision",
    "training.dataloader_num_workers", "training.dataloader_persistent_workers",
    "training.dataloader_prefetch_factor", "training.dataloader_multiprocessing_context",
    "training.ddp_find_unused_parameters", "training.ddp_bucket_cap_mb", "training.ddp_broadcast_buffers",
    "training.ddp_static_graph", "training.ddp_backend", "training.ddp_timeout",
    "training.debug", "training.skip_memory_metrics",
    "samples.every", "samples.judge", "samples.against",
    "model.attention", "model.trust_remote_code",
})  # fmt: skip
"""Settings that a resumed run may have other values of: its length, what it writes and measures, and what
decides only where and how fast it computes."""

UNRECORDED = frozenset({"output", "training.overwrite", "training.resume_from_checkpoint"})
"""Settings that say how a run is started, and nothing of it."""

_PLACES = re.compile(r"(model|reference|models\.[^.]+)\.(name|model|tokenizer|revision|cache)")


def by_content(name: str) -> bool:
    """Whether a setting names data, a model or a method, which are compared by what they are."""
    return name.startswith(("data.", "objective.")) or bool(_PLACES.fullmatch(name))


def must_stay(name: str) -> bool:
    """Whether a resumed run must have the same value of a setting."""
    return name not in MAY_CHANGE and not by_content(name)


def settings_of(args: PreferenceArguments, recipe: Mapping[str, Any] | None) -> dict[str, Any]:
    """Every setting of a run under its place in a recipe, those of ``training`` at their default too. A run
    from Python has no ``recipe``: its models and data are objects."""
    given = {place_of(name): value for name, value in args.to_dict().items()}
    sections = dict(recipe or {})
    rest = {f"training.{name}": value for name, value in sections.pop("training", {}).items()}
    settings: dict[str, Any] = finite({**dict(leaves(sections)), **rest, **given})
    return settings


def place_of(argument: str) -> str:
    """The place in a recipe of an argument of the trainer."""
    return RECIPE_PLACES.get(argument, f"training.{argument}")


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested settings under dotted names."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


_DECIDED_LATER = "training.learning_rate"
"""Null until the method and the adapters are known."""


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, with both values. A section that one of the two runs lacks, because it was
    started from Python, is passed over."""
    sections = {name.partition(".")[0] for name in before} & {name.partition(".")[0] for name in now}
    return {
        name: (before.get(name), now.get(name))
        for name in {**before, **now}
        if name.partition(".")[0] in sections
        and before.get(name) != now.get(name)
        and name not in OLD_PLACES
        and not (name == _DECIDED_LATER and now.get(name) is None)
    }


# What a run is made of


def of_data(data: Dataset[Item]) -> str:
    """A hash of all that is scored and all annotations, in their order."""
    digest = hashlib.sha256(repr(data.roles).encode())
    for item in data:
        digest.update(item.fingerprint())
    return digest.hexdigest()[:32]


def of_objective(objective: Objective) -> dict[str, Any]:
    """The method and its arguments, as they were given."""
    return {"method": objective.key, **objective.arguments}


def of_start(policy: nn.Module) -> dict[str, Any]:
    """A hash of the weights that a run starts from, and the configurations of its adapters."""
    adapters = getattr(policy, "peft_config", None) or {}
    incidental = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
    return {
        "model": model_fingerprint(policy)[:32],
        "adapters": {
            f"{name}.{key}": sorted(value) if isinstance(value, set) else value  # in any order otherwise
            for name, config in adapters.items()
            for key, value in config.to_dict().items()
            if key not in incidental
        },
    }


def of_optimizer(optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """The class and the options of an optimizer that was given; empty where settings say what it is."""
    if optimizer is None:
        return {}
    options = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    return finite({"class": type(optimizer).__name__, **options})


def of_references(references: References, named: Iterable[str]) -> dict[str, str]:
    """Hashes of the models that the policy is measured against and did not start as: those in the cache, and
    of ``named`` ones that are scored beside it."""
    cached = {name: model.logps.store.fingerprint for name, model in references.cached.items()}
    beside = {name: references.providers[name].model for name in named if name in references.providers}
    return cached | {name: model_fingerprint(cast("nn.Module", model)) for name, model in beside.items()}
