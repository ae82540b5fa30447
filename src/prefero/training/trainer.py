"""The trainer: :class:`transformers.Trainer` with a step plan, a scoring pass, an objective and its update
rule."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from prefero.errors import PreferoError
from prefero.models.kind import Dataset, Kind
from prefero.models.loading import ModelSource
from prefero.objectives.batch import Signal
from prefero.objectives.compare import Objective
from prefero.objectives.needs import Sizes, materialise
from prefero.reference.providers import resolve
from prefero.training import checkpoints
from prefero.training.auxiliary import (
    Following,
    between_steps,
    fill_gaps,
    loaded,
    refuse_impossible,
    update_rule,
)
from prefero.training.batches import RankRows, rows_of
from prefero.training.config import PreferenceArguments as PreferenceArguments
from prefero.training.ingredients import Reference, all_of, prepared
from prefero.training.metrics import MONITORED, Evaluated, StepLog, evaluate
from prefero.training.monitors import MonitorCallback
from prefero.training.resuming import ResumingTrainer, StopInOrder
from prefero.training.run_folder import RunFolder, described
from prefero.training.step import Ranks, Scorer, UpdateRule, to_device

logger = logging.getLogger(__name__)


class PreferenceTrainer(ResumingTrainer):
    """Aligns a model with preference data by one objective.

    Example::

        PreferenceTrainer("Qwen/Qwen3-0.6B", "trl-lib/ultrafeedback_binarized",
                          objective="simpo", output_dir="runs/simpo").train()

    Args:
        model: a hub name, a folder, or a loaded model (with PEFT adapters or without).
        train_dataset: preference data: a file, a folder, a hub name, a ``datasets.Dataset``, rows,
            :class:`~prefero.data.examples.Examples` or what the kind of model read of them.
        eval_dataset: held-out data in any of these forms, or several by name.
        objective: a method's name, its configuration, or an objective.
        args: all arguments; without it ``settings`` are taken as arguments of :class:`PreferenceArguments`.
        kind: which kind of model it is, by name or with options (:mod:`prefero.kinds`); by default what its
            configuration tells.
        processing_class: the tokenizer, processor or scheduler; by default the one that belongs to ``model``.
        reference: who ``"reference"`` is: a kind or a checkpoint as in a recipe, or a
            :class:`~prefero.reference.providers.ReferenceSpec`.
        models: other models that the objective reads, by name.
        peft_config: a configuration of PEFT adapters, to train them alone.
        recipe: what ``run.json`` records as the configuration; by default the arguments.

    Raises:
        PreferoError: for everything that the user has to change, before anything is trained.
    """

    # The loss is divided by what the whole step counts, not once more by the number of rows.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: str | ModelSource | nn.Module,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        objective: str | Mapping[str, Any] | Objective = "dpo",
        args: PreferenceArguments | None = None,
        *,
        kind: str | Kind = "auto",
        processing_class: Any = None,
        reference: Reference = "auto",
        models: Mapping[str, Reference] | None = None,
        peft_config: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        recipe: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        args = PreferenceArguments.given(args, settings)
        self.made = made = prepared(
            model,
            train_dataset,
            eval_dataset,
            objective,
            args,
            kind=kind,
            processor=processing_class,
            reference=reference,
            models=models,
            peft_config=peft_config,
        )
        self.objective = made.objective
        self.plan = made.plan(made.train, shuffle=True) if made.train is not None else None
        if self.plan is not None:
            args.gradient_accumulation_steps = self.plan.rows
        super().__init__(
            model=made.policy,
            args=args,
            train_dataset=made.train,
            eval_dataset=made.eval,
            processing_class=made.kind.processor,
            callbacks=callbacks,
        )
        self.references = resolve(
            made.demands,
            made.specs,
            made.kind,
            self.model,
            partial(loaded, kind=made.kind, policy=made.policy, args=args),
            precision=self.accelerator.mixed_precision,
        )
        for provider in self.references.providers.values():
            if isinstance(provider.model, nn.Module):
                provider.model.to(args.device)
        refuse_impossible(
            self.references, self.accelerator, sharded=args.parallel == "fsdp" or self.launcher_shards
        )
        self._references_ready = not self.references.cached
        materialise(self.objective, self._state_sizes, seed=args.seed).to(args.device)
        if args.parallel == "fsdp":
            self._prepare_references()
            self.shard()
        self.scorer = Scorer(
            made.kind,
            made.needs,
            self.references.providers,
            sizes=self._state_sizes,
            around=self.accelerator.autocast,
        )
        self._ranks = Ranks(self.accelerator.num_processes, self._sum_over_ranks, gather_object, args.device)
        self.update: UpdateRule = update_rule(self.objective, made.needs.exact, self.scorer, self._ranks)
        self.rows: RankRows | None = None
        self._steps = StepLog(self._sum_over_ranks, args.device)
        self._latest: tuple[int, Evaluated | None] = (0, None)
        self.remove_callback(PrinterCallback)  # metrics.jsonl has it all
        if self.is_world_process_zero():
            for data in (made.train, *all_of(made.eval)):
                for note in data.summary.notes if data is not None else ():
                    logger.warning(note)
        self._stop = StopInOrder(self._sum_over_ranks, args.device)
        self.kept, between = between_steps(self)
        folder = Path(self.args.output_dir)
        for callback in (
            *between,
            Following(self),
            RunFolder(folder, described(made, self.args.to_dict() if recipe is None else recipe)),
            MonitorCallback(folder),
            self._stop,
        ):
            self.add_callback(callback)

    def _state_sizes(self, name: str) -> Sizes:
        """How wide and how many the states of the model of that name are."""
        provider = self.references.providers.get(name)
        return self.made.kind.state_sizes(self.made.policy if provider is None else provider.model)

    # What is trained and measured on

    def _loader(self, rows: RankRows, data: Dataset) -> DataLoader:
        return rows_of(self.made.kind, data, rows, self.made.needs, self.references, self.args)

    def get_train_dataloader(self) -> DataLoader:
        if self.plan is None:
            raise PreferoError("there is nothing to train on: give a train_dataset")
        self.rows = RankRows(self.plan, self.args.process_index)
        return self._loader(self.rows, self.train_dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        data = self.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset
        data = self.eval_dataset if data is None else data
        if not any(data is one for one in (self.train_dataset, *all_of(self.made.eval))):
            raise PreferoError("held-out data are given as eval_dataset when the trainer is made")
        return self._loader(RankRows(self.made.plan(data, shuffle=False), self.args.process_index), data)

    # Models that are not trained

    def _prepare_references(self) -> None:
        """Fill the disk cache where it has gaps, by models as they were at the start."""
        if self._references_ready or (self.launcher_shards and self.model_wrapped is self.made.policy):
            return  # what the launcher shards is in place once training has begun
        fill_gaps(self.references, self.made, self.accelerator)
        self._references_ready = True

    # Optimizer steps

    def train(
        self, resume_from_checkpoint: bool | str | Path | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Train, from the start or from a checkpoint.

        ``resume_from_checkpoint`` is True for the latest whole checkpoint of the output folder, ``"auto"``
        for that or the start, or a checkpoint's folder. Ctrl-C (or SIGTERM) lets the optimizer step end,
        writes a checkpoint and raises :class:`KeyboardInterrupt` saying how to go on.

        Raises:
            PreferoError: where the output folder holds another run, or the checkpoint is another run's.
        """
        checkpoint = self._starting_point(resume_from_checkpoint or self.args.resume_from_checkpoint)
        self._prepare_references()
        self._steps.start()
        # transformers would look at these by itself, and take a checkpoint that was cut off.
        self.args.resume_from_checkpoint = None
        with self._stop.listening():
            result = super().train(None if checkpoint is None else str(checkpoint), *args, **kwargs)
        if self._stop.stopped:
            raise KeyboardInterrupt(
                f"stopped after step {self.state.global_step} of {self.state.max_steps}; the checkpoint is "
                f"in {self.args.output_dir}: go on with training.resume=true (resume_from_checkpoint=True)"
            )
        return result

    @cached_property
    def identity(self) -> dict[str, Any]:
        assert self.plan is not None
        references = {name: cached.logps.store.fingerprint for name, cached in self.references.cached.items()}
        return checkpoints.identity(
            self.train_dataset, self.plan, self.objective, references, self.args.rounds
        )

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        rows, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.update.begin(rows)
        return rows, count

    def _prepare_inputs(self, inputs: Any) -> Any:
        return to_device(inputs, self.args.device)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        extra = self._monitored if self._logs_after_this_step() else frozenset()
        self.objective.train()
        share = self.update.share(model, inputs, extra, self._progress)
        self._steps.add(inputs, share, self.objective)
        return (share.loss, {}) if return_outputs else share.loss

    @cached_property
    def _monitored(self) -> frozenset[Signal]:
        return frozenset(MONITORED[name] for name in self.made.kind.monitors)

    @property
    def _progress(self) -> float:
        return self.state.global_step / max(self.state.max_steps, 1)

    def _logs_after_this_step(self) -> bool:
        step = self.state.global_step + 1
        if step == self.state.max_steps or (step == 1 and self.args.logging_first_step):
            return True
        return step % (self.state.logging_steps or 1) == 0

    def _sum_over_ranks(self, tensor: Tensor) -> Tensor:
        return (
            self.accelerator.reduce(tensor, reduction="sum") if self.accelerator.num_processes > 1 else tensor
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self._steps.drain()
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.args.should_save and not _internal_call:
            self.made.kind.save_beside(self.model, Path(output_dir or self.args.output_dir))

    # Held-out examples

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self._prepare_references()
        return super().evaluate(*args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        *args: Any,
        metric_key_prefix: str = "eval",
        **kwargs: Any,
    ) -> EvalLoopOutput:
        began = time.monotonic()
        found = self._evaluated(dataloader)
        self._latest = (self.state.global_step, found)
        self._steps.pause(time.monotonic() - began)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.means().items()}
        nothing: Any = None
        return EvalLoopOutput(nothing, nothing, metrics, found.examples)

    def evaluate_examples(self, eval_dataset: Any = None) -> Evaluated:
        """Every metric of every held-out example, in the order of the data; all processes have to ask."""
        self._prepare_references()
        return self._evaluated(self.get_eval_dataloader(eval_dataset))

    def final_evaluation(self) -> Evaluated:
        """The held-out examples after the last step, measured again only if training did not end with it."""
        step, found = self._latest
        return found if found is not None and step == self.state.global_step else self.evaluate_examples()

    def _evaluated(self, dataloader: DataLoader) -> Evaluated:
        with self.accelerator.autocast():
            return evaluate(
                self.model_wrapped,
                dataloader,
                self.objective,
                self.scorer,
                self._ranks,
                rows_per_step=dataloader.batch_sampler.plan.rows,  # type: ignore[union-attr]
                exact=self.made.needs.exact,
                extra=self._monitored,
                progress=self._progress,
            )
