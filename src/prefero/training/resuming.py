"""Stopping in order on a signal, and resuming exactly: the part of the trainer that saves and loads."""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import HubStrategy

from prefero.errors import PreferoError, number_of
from prefero.objectives.compare import Objective
from prefero.reference.providers import References
from prefero.storage import NotWrittenError, writing
from prefero.training import auxiliary, checkpoints, identity, sharding
from prefero.training.batches import StepPlan
from prefero.training.card import write_card
from prefero.training.metrics import Evaluated, StepLog
from prefero.training.preparation import Prepared
from prefero.training.run_folder import (
    RunFolder,
    clear,
    evaluation_of,
    record_of,
    refuse_files_of_others,
    refuse_finished_run,
    refuse_other_run,
)
from prefero.training.sharding import saved_weights
from prefero.training.trial import explaining

FEW_STEPS = 10
"""Steps of a run in which one that changes nothing counts."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(eq=False)
class StopInOrder(TrainerCallback):
    """On the first signal, lets the step end, writes a checkpoint and stops; the second one stops at once.

    ``sum_over_ranks`` adds up a tensor on ``device``: all ranks stop after the same step, whichever of them
    got the signal.
    """

    sum_over_ranks: Callable[[Tensor], Tensor]
    device: torch.device
    asked: bool = False
    stopped: bool = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals in the main thread; in another one nothing changes."""
        self.asked = self.stopped = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def hear(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            print("stopping after this optimizer step; press Ctrl-C again to stop at once", file=sys.stderr)

        try:
            for number in _SIGNALS:
                signal.signal(number, hear)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        asked = self.sum_over_ranks(torch.tensor(float(self.asked), device=self.device))
        if asked > 0 and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = control.should_training_stop = True


class NotFiniteError(PreferoError):
    """A step whose loss or gradient is no finite number, which would make the weights none either."""


class EarlyStopping(EarlyStoppingCallback):
    """Stops training where the metric no longer improves. Evaluations that do not give it do not count: those
    of other held-out sets, and those of a judge that has failed."""

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **models: Any,
    ) -> None:
        if f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}" in (metrics or {}):
            super().on_evaluate(args, state, control, metrics=metrics, **models)


def early_stop(metric: str, callback: EarlyStoppingCallback) -> str:
    """The reason of an early stop, in words."""
    least = callback.early_stopping_threshold
    by = f" by more than {least:g}" if least else ""
    times = number_of(callback.early_stopping_patience_counter, "evaluation")
    return f"{metric.removeprefix('eval_')} had not improved{by} in {times} since its best"


@dataclass(eq=False)
class AtStart(TrainerCallback):
    """Calls ``do`` when training begins, after transformers has set its own counts to zero."""

    do: Callable[[], None]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.do()


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """The files in a folder, with the time and the inode of each."""
    files = [file for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
    return {file.name: (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}


_SHARDED_ADAPTERS = "sharded-adapters.safetensors"


class ResumingTrainer(Trainer):
    """A trainer that resumes exactly where a killed one stopped.

    A checkpoint counts once its marker is written, which happens last. Besides what transformers saves, it
    holds the objective's state and what is ``kept``: the auxiliary models that change, and the state of
    update rules and callbacks. A model that :meth:`shard` has sharded is saved in whole tensors, and so is
    its optimizer. ``objective_weights`` are those that the objective itself learns; the optimizer holds them
    with the policy's. ``launcher_shards`` says whether FSDP or DeepSpeed was asked of accelerate, which
    places the policy when training begins.
    """

    args: Any
    model: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataset: Any
    eval_dataset: Any
    prepared: Prepared
    plan: StepPlan | None
    objective: Objective
    objective_weights: list[nn.Parameter]
    references: References
    kept: dict[str, checkpoints.Kept]
    launcher_shards: bool
    recipe: Mapping[str, Any] | None
    sections: Mapping[str, Any]
    """Of the recipe; of a run from Python those that are compared when it is resumed."""
    run_folder: RunFolder
    start: Mapping[str, Any]

    _steps: StepLog
    _tr_loss: Tensor
    _unlogged: Mapping[str, Any] = {}
    """What the checkpoint's run had counted since its last log."""
    _latest: tuple[int, Mapping[str, Evaluated]] = (0, {})
    """The step of the latest evaluation, and what it found, by the prefix of its metrics."""
    measured: Sequence[Mapping[str, Any]] = ()
    """The rows of ``evaluation.json``, once training is done."""
    _running = False

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that two runs have in common if one can resume from a checkpoint of the other."""
        assert self.plan is not None
        return {
            "data": identity.of_data(self.train_dataset),
            "processes": self.plan.world,
            "objective": identity.of_objective(self.objective),
            **self.start,
        }

    @property
    def places(self) -> dict[str, Any]:
        """The settings of this run by their places in a recipe."""
        return identity.settings_of(self.args, self.sections)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around all that writes to the run's folder: keeps other runs out of it, and says of what ends this
        one which checkpoint is the last that is whole. It may stand inside itself."""
        if self._running:
            yield
            return
        lock, folder, refused = self.run_folder.lock, Path(self.args.output_dir), ""
        if self.args.should_save:
            try:
                lock.take()
            except PreferoError as error:
                refused = str(error)
        if said := next(filter(None, gather_object([refused])), ""):
            lock.release()
            raise PreferoError(said)
        self._running = True
        try:
            yield
        except NotWrittenError as error:
            then = "with training.resume_from_checkpoint=true the run continues from it"
            raise NotWrittenError(f"{error}. {checkpoints.last_whole(folder, then)}") from error
        except NotFiniteError as error:
            then = "a new run in another folder may start from model.name={checkpoint}"
            raise NotFiniteError(f"{error}. {checkpoints.last_whole(folder, then)}") from error
        finally:
            self._running = False
            lock.release()

    def _starting_point(self, wanted: bool | str | Path | None) -> Path | None:
        """The checkpoint to resume from, or None with an output folder that is free for a new run."""
        folder = Path(self.args.output_dir)
        checkpoint = checkpoints.to_resume_from(folder, wanted)
        self.run_folder.changes = {}
        if checkpoint is not None:
            checkpoint = checkpoints.undamaged(checkpoint, or_earlier=wanted == "auto")
            checkpoints.refuse_other_run(checkpoint, self.places, self.identity)
            self.run_folder.changes = checkpoints.changes(checkpoint, self.places)
            if self.args.should_save:
                print(f"resuming from {checkpoint}", file=sys.stderr)
                for name, change in self.run_folder.changes.items():
                    was, now = checkpoints.shown(change["was"]), checkpoints.shown(change["is"])
                    print(f"from here on {name} is {now}; it was {was}", file=sys.stderr)
        elif self.args.overwrite or wanted == "auto":
            refuse_files_of_others(folder)
            if wanted == "auto":
                refuse_finished_run(folder)
            if self.args.should_save:
                clear(folder)
        else:
            refuse_other_run(folder)
        self.accelerator.wait_for_everyone()
        return checkpoint

    def refuse_optimizer_that_lacks_weights(self) -> None:
        """Raise :class:`PreferoError` for an optimizer that was given and cannot hold all that is trained."""
        held = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        if not any(id(weight) in held for weight in self.model.parameters() if weight.requires_grad):
            raise PreferoError(
                "the optimizer in optimizers holds no weight that is trained: load the model, make the "
                "optimizer of its parameters, and give both"
            )
        trained = [f"models.{name} is trained" for name in self.references.trained]
        if self.objective_weights:
            trained.append("the objective has weights of its own")
        if self.args.parallel == "fsdp":
            trained.append("training.parallel=fsdp replaces the weights by shards")
        if trained:
            raise PreferoError(
                f"optimizers cannot be given, because {trained[0]}: set learning_rate and optim"
            )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        new = self.optimizer is None
        with explaining(self.args, "optimizer"):
            optimizer = super().create_optimizer(model)
        for name, second in self.references.trained.items() if new else ():
            base = self.args.learning_rate
            rate = second.learning_rate or base * self.objective.trains.get(name, 1.0)
            auxiliary.join_optimizer(optimizer, self.model, second, rate=rate, base=base)
        if new and self.objective_weights:
            rate = self.args.objective_learning_rate or self.args.learning_rate
            decay = self.args.objective_weight_decay
            optimizer.add_param_group({"params": self.objective_weights, "lr": rate, "weight_decay": decay})
        return optimizer

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        with explaining(self.args, "schedule"):
            scheduler = super().create_scheduler(num_training_steps, *args, **kwargs)
        if num_training_steps <= FEW_STEPS and self.args.should_save and not any(scheduler.get_last_lr()):
            print(
                f"this run has {number_of(num_training_steps, 'step')}, and warm-up begins with the learning "
                "rate 0, so that the first moves no weight: set training.warmup_steps=0",
                file=sys.stderr,
            )
        return scheduler

    def _prepare_references(self) -> None:
        raise NotImplementedError

    def _restore_unlogged(self) -> None:
        """Take up what was counted since the last log before the checkpoint."""
        if state := self._unlogged:
            self._steps.restore(state)
            self._tr_loss += state["loss"]
            self._total_loss_scalar = -state["loss"]  # which is of the steps of this call alone
            self._globalstep_last_logged = state["logged"]
        self._unlogged = {}

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        begin = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is None:
            return begin
        self._unlogged = checkpoints.unlogged(Path(resume_from_checkpoint), self.args.process_index)
        self.state.compute_steps(self.args, max_steps)  # in the place of the checkpoint's
        step = self.state.global_step
        checkpoints.refuse_shorter_run(Path(resume_from_checkpoint), step, max_steps)
        if stopped := self._stopped_early():
            if self.args.should_save:
                print(
                    f"no step is trained: this run had stopped early at step {step} of {max_steps}, because "
                    f"{stopped}. A larger training.early_stopping_patience trains on",
                    file=sys.stderr,
                )
            return num_train_epochs, 0
        if step < max_steps:
            note = record_of(Path(self.args.output_dir)).get("stopped") or {}
            if note.get("step") == step and self.args.should_save:
                told = f"this run had stopped at step {step} of {note['max_steps']}: {note['reason']}"
                print(f"{told}. It is trained on", file=sys.stderr)
            return begin
        if self.args.should_save:
            print(
                f"no step is left: {resume_from_checkpoint} is the end of this run, step {step} of "
                f"{max_steps}. A larger training.max_steps (or training.num_train_epochs) trains on",
                file=sys.stderr,
            )
        return num_train_epochs, 0

    @property
    def early_stopping(self) -> list[EarlyStoppingCallback]:
        """The callbacks that stop training where a metric no longer improves."""
        return [one for one in self.callback_handler.callbacks if isinstance(one, EarlyStoppingCallback)]

    def _stopped_early(self) -> str:
        """Restore how often the metric had not improved at the checkpoint; the reason, if that had ended the
        run already, else nothing."""
        reason = ""
        states: Any = self.state.stateful_callbacks
        for callback in self.early_stopping:
            kept = states.get(type(callback).__name__) or {}
            kept = (kept or [{}])[0] if isinstance(kept, list) else kept
            count = kept.get("attributes", {}).get("early_stopping_patience_counter", 0)
            callback.early_stopping_patience_counter = count
            if count >= callback.early_stopping_patience:
                reason = early_stop(str(self.args.metric_for_best_model), callback)
        return reason

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self._prepare_references()
        return prepared

    def shard(self) -> None:
        """Shard the policy and the auxiliary models over all processes; nothing wraps them again."""
        if self.objective_weights:
            raise PreferoError(
                "the objective has weights of its own, which training.parallel=fsdp would leave out: leave "
                "training.parallel out"
            )
        for provider in self.references.providers.values():
            if isinstance(provider.model, nn.Module):
                sharding.shard(provider.model, self.args.device)
        sharding.shard(self.model, self.args.device)
        # What transformers calls a model that was sharded when it was loaded: it is not wrapped again.
        self.is_distributed_loading_by_transformers = True

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            with writing(checkpoint):
                self._write_checkpoint(checkpoint, model, trial)
        except NotWrittenError:
            if self.args.should_save:
                shutil.rmtree(checkpoint, ignore_errors=True)  # a part, which takes up the disk
            raise

    def _write_checkpoint(self, checkpoint: Path, model: nn.Module, trial: Any) -> None:
        if self.args.should_save:
            (checkpoint / checkpoints.MARKER).unlink(missing_ok=True)
        # An older checkpoint goes only when this one is whole.
        keep, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = keep
        # every rank has to take part in making tensors whole
        files = {
            f"{name}.safetensors": {key: sharding.whole(tensor) for key, tensor in one.moved().items()}
            for name, one in self.kept.items()
        }
        if isinstance(self.model, PeftModel) and sharding.is_sharded(self.model):
            files[_SHARDED_ADAPTERS] = sharding.whole_trained(self.model)  # under their own names
        unlogged = {
            **self._steps.state(), "loss": self._tr_loss.item(), "logged": self._globalstep_last_logged,
        }  # fmt: skip
        everyone = gather_object([unlogged])
        if self.args.should_save:
            checkpoints.save_unlogged(checkpoint, everyone)
            for name, tensors in files.items():
                whole = {key: value.cpu().contiguous() for key, value in tensors.items()}
                save_file(whole, checkpoint / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if not self.args.save_only_model:  # which cannot be resumed from
                checkpoints.mark_complete(checkpoint, self.state.global_step, self.identity, self.places)
            folder, best = Path(self.args.output_dir), self.state.best_model_checkpoint
            checkpoints.rotate(folder, self.state.global_step, keep, best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._prepare_references()  # by the policy as it started
        checkpoint = Path(resume_from_checkpoint)
        if self.launcher_shards or (
            isinstance(self.model, PeftModel) and not sharding.is_sharded(self.model)
        ):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._load_weights(checkpoint)
        checkpoints.load_state(self.objective, checkpoint)
        checkpoints.load_kept(checkpoint, self.kept)

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        best = Path(self.state.best_model_checkpoint)
        if self.launcher_shards or isinstance(self.model, PeftModel):
            super()._load_best_model()
        else:
            self._load_weights(best)
        checkpoints.load_state(self.objective, best)
        self._latest = (0, {})  # of another model

    def _load_weights(self, checkpoint: Path) -> None:
        adapters = checkpoint / _SHARDED_ADAPTERS
        state = load_file(adapters) if adapters.is_file() else saved_weights(checkpoint, self.model)
        if sharding.is_sharded(self.model):
            sharding.load_whole_state(self.model, state)
        else:
            self.model.load_state_dict(state, strict=False)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not sharding.is_sharded(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        main, folder = self.args.should_save, Path(output_dir)
        sharding.save_optimizer(self.model, self.optimizer.optimizer, folder / OPTIMIZER_NAME, main=main)
        if main:
            torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not sharding.is_sharded(self.model):
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            folder = Path(checkpoint)
            sharding.load_optimizer(self.model, self.optimizer.optimizer, folder / OPTIMIZER_NAME)
            self.lr_scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))
        schedule = self.lr_scheduler
        if checkpoint is not None and isinstance(schedule, LambdaLR):
            # That of the next step in this run: the checkpoint's run may have ended at another step.
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            rates = [base * factor for base, factor in zip(schedule.base_lrs, factors, strict=True)]
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            schedule._last_lr = rates

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        folder, sharded = Path(output_dir or self.args.output_dir), sharding.is_sharded(self.model)
        own = self.args.should_save and folder.absolute() == self.run_folder.folder.absolute()
        before = _stamps(folder) if own else {}
        with writing(folder):
            if isinstance(self.model, PreTrainedModel | PeftModel) and not sharded:
                super().save_model(output_dir, _internal_call=True)
            else:
                state = {"state_dict": sharding.whole_state(self.model)} if sharded else {}
                if self.args.should_save:
                    self.model.save_pretrained(folder, **state)
                    if self.processing_class is not None:
                        self.processing_class.save_pretrained(folder)
            if self.args.should_save:
                checkpoints.save_objective(self.objective, folder)
                if not _internal_call or output_dir is None:  # the user's call, or to be pushed
                    self.prepared.kind.save_beside(self.model, folder)
                    self.write_card(folder)
        if own:
            self.run_folder.note_saved(dict(_stamps(folder).items() - before.items()))
        if sharded:
            self.accelerator.wait_for_everyone()
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def write_card(self, folder: Path, **head: Any) -> None:
        """Write the card of the model that is saved in ``folder``; none before training has begun."""
        run = Path(str(self.args.output_dir))
        if record := record_of(run):
            write_card(folder, record, evaluation_of(run), **head)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            # transformers takes the weights and the processor alone
            folder = Path(self.args.output_dir)
            checkpoints.save_objective(self.objective, folder)
            self.prepared.kind.save_beside(self.model, folder)
        super()._push_from_checkpoint(checkpoint_folder)

    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> Any:
        if self.plan is not None:  # transformers counts micro-batches
            num_train_samples = self.plan.examples_until(self.state.max_steps)
        return super()._finalize_training(trial, num_train_samples, start_time)

    @contextlib.contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        # Sharded gradients are reduced after each micro-batch; waiting for the last would hold them whole.
        yield

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        norm = sharding.whole(norm) if isinstance(norm, Tensor) else norm
        self._refuse_what_is_not_finite(norm)
        return norm

    def _refuse_what_is_not_finite(self, norm: Any) -> None:
        """Raise :class:`NotFiniteError` before a step makes the weights NaN. Scaled gradients of float16 may
        overflow: such a step is left out, and the scale is made smaller."""
        if self.args.logging_nan_inf_filter:
            return
        scaled = self.accelerator.scaler is not None
        loss, size = float(self._tr_loss), 0.0 if norm is None or scaled else float(norm)
        if math.isfinite(loss) and math.isfinite(size):
            return
        what = f"gradient is {size}" if math.isfinite(loss) else f"loss is {loss}"
        raise NotFiniteError(
            f"stopped at step {self.state.global_step + 1}: its {what}, and the step would have made the "
            "weights NaN. A smaller training.learning_rate, more warm-up or training.precision=float32 may "
            "help; training.logging_nan_inf_filter=true trains on"
        )
