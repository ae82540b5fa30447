"""The names of settings: those of ``transformers.TrainingArguments`` that mean the same here, those that are
another setting or nothing here, and those of prefero 0.1, TRL and earlier versions of transformers.

Every field of ``TrainingArguments`` is in one of :data:`TAKEN`, :data:`REPLACED` and :data:`REFUSED`; a test
walks them, so that a new field is decided on before it is passed through.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prefero.errors import PreferoError

TAKEN = frozenset({
    "output_dir", "seed", "data_seed", "full_determinism", "use_cpu",
    "num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs",
    "warmup_steps",
    "optim", "optim_args", "optim_target_modules", "weight_decay", "adam_beta1", "adam_beta2",
    "adam_epsilon", "max_grad_norm",
    "tf32", "activation_checkpointing", "activation_checkpointing_kwargs", "torch_empty_cache_steps",
    "torch_compile", "torch_compile_backend", "torch_compile_mode", "use_liger_kernel",
    "liger_kernel_config",
    "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node",
    "logging_nan_inf_filter",
    "log_level", "log_level_replica", "disable_tqdm",
    "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id",
    "eval_strategy", "eval_steps", "eval_delay", "eval_on_start",
    "save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node",
    "load_best_model_at_end", "metric_for_best_model", "greater_is_better",
    "resume_from_checkpoint", "restore_callback_states_from_checkpoint",
    "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push",
    "hub_revision",
    "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
    "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph",
    "ddp_backend", "ddp_timeout",
    "deepspeed", "debug", "skip_memory_metrics",
})  # fmt: skip
"""Fields that mean here what they mean in transformers."""


class Replaced(NamedTuple):
    """The setting that does here what a field does in transformers, and the difference."""

    setting: str
    reason: str


REPLACED: Mapping[str, Replaced] = {
    "per_device_train_batch_size": Replaced(
        "training.examples_per_step",
        "a step takes that many examples on any number of processes; tokens_per_row limits a forward pass",
    ),
    "per_device_eval_batch_size": Replaced(
        "training.tokens_per_row", "held-out examples are packed by tokens as training examples are"
    ),
    "gradient_accumulation_steps": Replaced(
        "training.examples_per_step", "the forward passes of a step follow from it and tokens_per_row"
    ),
    "auto_find_batch_size": Replaced(
        "training.tokens_per_row", "where memory runs out, lower it: the step stays the same"
    ),
    "bf16": Replaced("training.precision=bfloat16", "one setting names the precision"),
    "fp16": Replaced("training.precision=float16", "one setting names the precision"),
    "gradient_checkpointing": Replaced(
        "training.activation_checkpointing", "the name that it has in transformers 5"
    ),
    "gradient_checkpointing_kwargs": Replaced(
        "training.activation_checkpointing_kwargs", "the name that it has in transformers 5"
    ),
    "fsdp": Replaced(
        "training.parallel=fsdp",
        "FSDP2, whose checkpoints hold whole tensors; accelerate launch takes a configuration of FSDP",
    ),
    "fsdp_config": Replaced("training.parallel=fsdp", "accelerate launch takes a configuration of FSDP"),
    "label_smoothing_factor": Replaced(
        "objective.method", "cdpo, rdpo and others have an argument for labels that may be wrong"
    ),
}
"""Fields that a setting of ours stands in the place of."""

_SHARED = "the loss is the mean over the examples of the step on all processes"
_GATHERED = "held-out examples are measured one by one and gathered in the order of the data"
_ORDER = "a step is examples_per_step examples of a shuffle that data_seed decides"
_PREDICTIONS = "compute_metrics gets the reward, log-probability and length of every response"
_SCRIPT = "it says nothing to a trainer, only to scripts: call train() or evaluate()"

REFUSED: Mapping[str, str] = {
    "average_tokens_across_devices": _SHARED,
    "bf16_full_eval": "held-out examples are scored in the precision of training, so that losses compare",
    "fp16_full_eval": "held-out examples are scored in the precision of training, so that losses compare",
    "prediction_loss_only": "evaluation gives every metric, and keeps no logits that could be left out",
    "eval_do_concat_batches": _GATHERED,
    "eval_use_gather_object": _GATHERED,
    "eval_accumulation_steps": "no logits are kept: what is measured of an example is a few numbers",
    "include_for_metrics": _PREDICTIONS,
    "batch_eval_metrics": "compute_metrics is called once, with all held-out examples",
    "remove_unused_columns": "the objective decides which columns of the data are read",
    "label_names": "preference data have no labels of tokens: the objective decides which columns are read",
    "train_sampling_strategy": f"{_ORDER}, packed by length within the step",
    "length_column_name": "lengths are counted in tokens when the data are read",
    "dataloader_drop_last": "the last, smaller step of an epoch is kept",
    "dataloader_in_order": f"{_ORDER}, in that order",
    "dataloader_pin_memory": "token ids are small, and are copied as they are",
    "accelerator_config": "steps are dealt to the processes before training, not by accelerate",
    "parallelism_config": "tensor, context and sequence parallelism would cut the rows that examples share: "
    "shard the model with training.parallel=fsdp or DeepSpeed",
    "ignore_data_skip": "a resumed run continues at the example where it stopped",
    "enable_jit_checkpoint": "SIGTERM always ends the optimizer step, writes a checkpoint and stops",
    "neftune_noise_alpha": "its noise is scaled by the length of a row, which holds several examples here",
    "use_cache": "scoring reads no keys and values of earlier tokens",
    "include_num_input_tokens_seen": "a prompt that responses share goes through the network once: "
    "tokens_per_second in metrics.jsonl counts what does",
    "local_rank": "launchers say it in the environment (LOCAL_RANK)",
    "do_train": _SCRIPT,
    "do_eval": _SCRIPT,
    "do_predict": _SCRIPT,
    # arguments of transformers.Trainer
    "data_collator": "the kind of model packs examples, so that a prompt goes through the network once",
    "preprocess_logits_for_metrics": f"no logits are kept: {_PREDICTIONS}",
    "compute_loss_func": "the objective is the loss: give an objective of your own",
    "optimizer_cls_and_kwargs": "give optimizers=(optimizer, schedule), or set optim and optim_args",
}
"""Fields, and arguments of the trainer, that may not be set, and why."""

RECIPE_PLACES: Mapping[str, str] = {
    "output_dir": "output",
    "seed": "seed",
    "max_length": "data.max_length",
    "too_long": "data.too_long",
    "template": "data.template",
    "chat_template_kwargs": "data.chat_template_kwargs",
    "score": "data.score",
}
"""Arguments of the trainer that a recipe has outside ``training``."""

OLD_NAMES: Mapping[str, str] = {
    "epochs": "num_train_epochs",
    "schedule": "lr_scheduler_type",
    "warmup": "warmup_steps",
    "optimizer": "optim",
    "resume": "resume_from_checkpoint",
}
"""Settings that had another name in prefero 0.1; read until 0.3. ``arguments`` held what is in ``training``
itself now, and ``save_steps: null`` was ``save_strategy: "no"``."""

TRL_NAMES: Mapping[str, str] = {
    "beta": "objective.beta, an argument of the method",
    "loss_type": "objective.method (docs/trl.md has each by its name here)",
    "loss_weights": "objective.coefficient and objective.plus",
    "ld_alpha": "objective.reward={ld_dpo: {alpha: …}}",
    "f_divergence_type": "objective.reward={f_dpo: {divergence: …}}",
    "f_alpha_divergence_coef": "alpha of objective.reward={f_dpo: {…}}, which is 1 minus it",
    "label_smoothing": "objective.smoothing of cdpo, objective.flip_rate of rdpo",
    "use_weighting": "objective.weight=wpo",
    "discopop_tau": "objective.tau of discopop",
    "rpo_alpha": "objective.plus={nll: …}",
    "reference_free": "a method without a reference (prefero methods --no-reference)",
    "simpo_gamma": "objective.gamma of simpo",
    "cpo_alpha": "objective.lam of cpo",
    "desirable_weight": "objective.desirable of kto",
    "undesirable_weight": "objective.undesirable of kto",
    "ref_model": "reference",
    "quantization_config": "model.quantization",
    "precompute_ref_log_probs": "reference=cached, which is the default where it can be",
    "precompute_ref_batch_size": "training.tokens_per_row",
    "sync_ref_model": "reference={kind: moving}",
    "ref_model_mixup_alpha": "reference.alpha, with reference.kind=moving",
    "ref_model_sync_steps": "reference.every, with reference.kind=moving",
    "model_init_kwargs": "model.dtype, model.attention, model.revision and model.quantization",
    "trust_remote_code": "model.trust_remote_code",
    "router_aux_loss_coef": "left out: the model's own counts, where its output_router_logits is true",
    "disable_dropout": "training.dropout, the other way round: dropout is off by default",
    "max_prompt_length": "data.max_length, of a prompt with its response",
    "max_completion_length": "data.max_length, of a prompt with its response",
    "truncation_mode": "data.too_long",
    "padding_free": "training.layout=trees, which is the default where the model can take it",
    "pad_to_multiple_of": "not needed, because rows are packed without padding",
    "pad_token": "not needed, because rows are packed without padding",
    "dataset_num_proc": "not needed, because data are read and tokenised in one process",
    "activation_offloading": "training.activation_checkpointing=true with "
    "training.activation_checkpointing_kwargs={offload: true}",
    "generate_during_eval": "samples.every, the steps between two answers to the same prompts",
}
"""Names of TRL's ``DPOConfig`` and its like, and what they are here: each text completes "it is"."""

ADAPTER_NAMES: Mapping[str, str] = {
    "rank": "model.lora.r",
    "lora_rank": "model.lora.r",
    "lora_r": "model.lora.r",
    "lora_alpha": "model.lora.alpha",
    "lora_dropout": "model.lora.dropout",
    "lora_target_modules": "model.lora.target_modules",
    "use_peft": "model.lora=true",
}
"""Names of the rank and the like of low-rank adapters in other libraries."""

FORMER_NAMES: Mapping[str, str] = {
    "tokenizer": "model.tokenizer",
    "lr": "training.learning_rate",
    "batch_size": "training.examples_per_step",
    "eval_data": "data.eval",
    "train_data": "data.train",
    "warmup_ratio": "training.warmup_steps, which is a share of all steps if it is below 1",
    "evaluation_strategy": "training.eval_strategy",
    "overwrite_output_dir": "training.overwrite",
    "no_cuda": "training.use_cpu",
    "group_by_length": "not needed, because a step is packed by length",
    "logging_dir": "not needed, because trackers choose their folder and metrics.jsonl is in the run's",
}
"""Names that earlier versions of transformers had."""

OTHER_NAMES: Mapping[str, str] = {**TRL_NAMES, **ADAPTER_NAMES, **FORMER_NAMES}


ARGUMENTS: Mapping[str, str] = {
    **{place: name for name, place in RECIPE_PLACES.items()},
    "model.name": "model",
    "model.lora": "peft_config",
    "model.tokenizer": "processing_class",
    "model.quantization": "quantization of prefero.models.ModelSource, given as model",
    "data.train": "train_dataset",
    "data.eval": "eval_dataset",
}
"""Arguments of the trainer by the places of a recipe that say the same."""


_IN_PYTHON = {"true": "True", "false": "False", "null": "None"}


def as_arguments(text: str) -> str:
    """A message with the arguments of the trainer in the place of a recipe's keys."""
    places = "|".join(re.escape(place) for place in ARGUMENTS if "." in place)
    text = re.sub(rf"(?<![\w./])({places})(?![\w./])", lambda found: ARGUMENTS[found[1]], text)
    text = re.sub(r"(?<![\w./])training\.(\w+)", r"\1", text)
    return re.sub(r"(?<=\w=)(true|false|null)\b", lambda found: _IN_PYTHON[found[1]], text)


def named_as_given(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let the errors of a trainer's method name settings as they were given: by their places in its
    ``recipe``, or without one as arguments."""

    @functools.wraps(method)
    def call(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(trainer, *args, **kwargs)
        except (PreferoError, KeyboardInterrupt) as error:
            if getattr(trainer, "recipe", None) is None and error.args:
                error.args = (as_arguments(str(error.args[0])), *error.args[1:])
            raise

    return call


OLD_PLACES: Mapping[str, str] = {"training.samples": "samples"}
"""Settings that had another place in prefero 0.1; read until 0.3."""


def in_their_places(recipe: Mapping[str, Any], tell: Callable[[str], object]) -> dict[str, Any]:
    """A recipe with the settings of 0.1 in their places; ``tell`` is called with a line about each.

    Raises :class:`PreferoError` for a setting that is given in both places.
    """
    moved = dict(recipe)
    for old, new in OLD_PLACES.items():
        section, _, name = old.partition(".")
        inner = moved.get(section)
        if not isinstance(inner, Mapping) or name not in inner:
            continue
        if new in moved:
            raise PreferoError(f"{new} is given twice, once as {old}: leave that out")
        moved[section] = {key: value for key, value in inner.items() if key != name}
        moved[new] = inner[name]
        tell(f"a setting has another place now, and is read at the old one until 0.3: {old} is {new}")
    return moved


def current_names(
    settings: Mapping[str, Any], tell: Callable[[str], object], place: str = ""
) -> dict[str, Any]:
    """Settings by their current names. ``place`` stands before a name in messages; ``tell`` is called with
    one line about the names of 0.1 among them, if there are any.

    Raises :class:`PreferoError` for a setting that is given twice.
    """
    inner = settings.get("arguments") or {}
    if not isinstance(inner, Mapping):
        raise PreferoError(f"{place}arguments is {inner!r}: it held names and values (until 0.1)")
    given = [(name, name, value) for name, value in settings.items() if name != "arguments"]
    given += [(f"arguments.{name}", name, value) for name, value in inner.items()]
    current: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    for spelled, name, value in given:
        now = OLD_NAMES.get(name, name)
        if name == "save_steps" and value is None:
            now, value = "save_strategy", "no"
        if now in current:
            raise PreferoError(
                f"{place}{now} is given twice, once as {place}{spelled if spelled != now else renamed[now]}: "
                "leave that out"
            )
        current[now] = value
        if spelled != now:
            renamed[now] = spelled
    if renamed:
        pairs = ", ".join(f"{place}{old} is {place}{now}" for now, old in renamed.items())
        tell(f"settings have other names now, and are read by the old ones until 0.3: {pairs}")
    return current
