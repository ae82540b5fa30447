"""The trainer: :class:`transformers.Trainer` with a step plan, a scoring pass, an objective and its update
rule."""

from __future__ import annotations

import copy
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    EvalPrediction,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    set_seed,
)
from transformers.trainer_utils import BestRun, EvalLoopOutput

from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.evaluate.judges import judge_named
from prefero.evaluate.verdicts import Judging
from prefero.models.kind import Kind
from prefero.models.loading import ModelSource, first_line
from prefero.objectives.compare import Objective
from prefero.objectives.needs import Sizes, materialise
from prefero.reference.cache import CacheShare
from prefero.reference.providers import fill_cache
from prefero.storage import write_json
from prefero.training import checkpoints, identity
from prefero.training.auxiliary import (
    Extrapolation,
    FastSlowStep,
    FollowPolicy,
    TakingTurns,
    UnwrappedWeights,
    auxiliary_models,
)
from prefero.training.batches import Collator, DrawnItems, RankBatches
from prefero.training.config import PreferenceArguments as PreferenceArguments, SampleSettings
from prefero.training.metrics import MONITORED, Evaluated, StepLog, evaluate, held_out_row
from prefero.training.oracle import ComparisonOracleStep
from prefero.training.preparation import Reference, prepare
from prefero.training.recipe import recipe_of
from prefero.training.resuming import (
    AtStart,
    EarlyStopping,
    NotFiniteError,
    ResumingTrainer,
    StopInOrder,
    early_stop,
)
from prefero.training.run_folder import MonitorCallback, RunFolder, described
from prefero.training.samples import Samples, generators_kept, is_metric, samples_of
from prefero.training.step import BackwardAndStep, Ranks, Scorer, UpdateRule, WholeStep
from prefero.training.trainer_surface import require_surface
from prefero.training.trial import given_of, loader_of, try_out
from prefero.training.tuning import model_from, search
from prefero.training.vocabulary import as_arguments, named_as_given

logger = logging.getLogger(__name__)

RULES: Mapping[str, Callable[[Any, Scorer, Ranks], UpdateRule]] = {
    "comparison_oracle": ComparisonOracleStep,
    "fast_slow": FastSlowStep,
}
"""The update rules of objectives that name one."""


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
        kind: which kind of model it is, by name or with options (:mod:`prefero.models`); by default what its
            configuration tells.
        processing_class: the tokenizer, processor or scheduler; by default the one that belongs to ``model``.
        reference: who ``"reference"`` is: a kind or a checkpoint as in a recipe, a
            :class:`~prefero.reference.providers.ReferenceSpec`, or a loaded model.
        models: other models that the objective reads, by name.
        peft_config: a configuration of PEFT adapters, to train them alone.
        model_init: a function that makes the model, in place of ``model``; it is called once, after the seed
            is set. It may take a trial of :meth:`hyperparameter_search`, which is None here.
        compute_metrics: called at each evaluation with an :class:`transformers.EvalPrediction` whose
            ``predictions`` are arrays over the held-out examples, ``reward``, ``logps`` and ``length``, each
            by role (NaN where an example has no such response), and whose ``label_ids`` are None. Its results
            join the metrics.
        optimizers: an optimizer of the weights that are trained and its schedule, in place of ``optim`` and
            ``lr_scheduler_type``; either may be None.
        samples: answers of the policy as it trains: how many prompts, or the section of a recipe
            (:class:`~prefero.training.config.SampleSettings`); by default none.
        recipe: what ``run.json`` records as the configuration; by default the arguments in the form of a
            recipe, without what was given as an object.

    Raises:
        PreferoError: for everything that the user has to change, before anything is trained.
    """

    # The loss is divided by what the whole step counts, not once more by the number of micro-batches.
    loss_is_scaled_for_ga = True

    trained = False
    """Whether training has come to its end."""

    @named_as_given
    def __init__(
        self,
        model: str | ModelSource | nn.Module | None = None,
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
        model_init: Callable[..., nn.Module] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, Any] = (None, None),
        callbacks: list[TrainerCallback] | None = None,
        samples: int | Mapping[str, Any] | SampleSettings | None = None,
        recipe: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        require_surface(PreferenceTrainer)
        self.recipe = recipe
        args = PreferenceArguments.given(args, settings)
        if isinstance(train_dataset, nn.Module):
            raise PreferoError(
                "the second argument is the training data, and is a model: give it as reference=, if it is "
                "what the policy is measured against"
            )
        if train_dataset is not None:
            try_out(args, held_out=eval_dataset is not None)
        self._given = {
            "train_dataset": train_dataset, "eval_dataset": eval_dataset, "objective": objective,
            "args": copy.copy(args), "kind": kind, "processing_class": processing_class,
            "reference": reference, "models": models, "peft_config": peft_config, "model_init": model_init,
            "compute_metrics": compute_metrics, "optimizers": optimizers, "callbacks": callbacks,
            "samples": samples,
        }  # fmt: skip
        _use(optimizers, args)
        sampled = SampleSettings.given(samples)
        self.sections = {"samples": sampled.model_dump(mode="json")} if recipe is None else recipe
        with generators_kept():
            judge = None if sampled.judge is None else judge_named(sampled.judge)
        if model is None and model_init is not None:
            set_seed(args.seed)
            model = model_from(model_init)
        elif model is None or model_init is not None:
            raise PreferoError("give either model or model_init, a function that makes the model")
        self.prepared = prepared = prepare(
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
            same=checkpoints.comparison(args, self.sections),
        )
        self.objective = prepared.objective
        self.plan = None if prepared.train is None else prepared.plan(prepared.train, shuffle=True)
        if self.plan is not None:
            args.gradient_accumulation_steps = self.plan.micro_batches
        held_out = dict(prepared.held_out)
        self.samples = self._samples(sampled, judge, args)
        try:
            super().__init__(
                model=prepared.policy,
                args=args,
                train_dataset=prepared.train,
                eval_dataset=held_out[""] if list(held_out) == [""] else held_out or None,
                processing_class=prepared.kind.saved_processor(),
                compute_metrics=compute_metrics,
                callbacks=[*([] if self.samples is None else [self.samples]), *(callbacks or ())],
                optimizers=optimizers,
            )
        except PreferoError:
            raise
        except Exception as error:  # trackers and the hub raise all kinds
            given = given_of(args, "tracker")
            raise PreferoError(f"training: {first_line(error)}{given and f' ({given})'}") from error
        sum_over_ranks = partial(self.accelerator.reduce, reduction="sum")
        self._ranks = Ranks(self.accelerator.num_processes, sum_over_ranks, gather_object, args.device)
        self._prepare_models()
        self._steps = StepLog(sum_over_ranks, args.device)
        self._stop = StopInOrder(sum_over_ranks, args.device)
        if recipe is None:
            others = {**(models or {}), "reference": reference}
            recipe = recipe_of(prepared, model, train_dataset, eval_dataset, others) | dict(self.sections)
        self._add_callbacks(recipe)

    # What a step is made of

    def _prepare_models(self) -> None:
        """Make the auxiliary models, the objective's weights, the scorer and the update rule."""
        prepared, args = self.prepared, self.args
        self.launcher_shards = bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)
        sharded = args.parallel == "fsdp" or self.launcher_shards
        self.references = auxiliary_models(prepared, self.accelerator, sharded=sharded)
        self._references_ready = not self.references.cached
        if self.plan is not None:
            self.start = self._start()
        materialise(self.objective, self._state_sizes, seed=args.seed).to(args.device)
        self.objective_weights = [weight for weight in self.objective.parameters() if weight.requires_grad]
        if self.optimizer is not None:
            self.refuse_optimizer_that_lacks_weights()
        if args.parallel == "fsdp":
            self._prepare_references()
            self.shard()
        self.scorer = Scorer(
            prepared.kind,
            prepared.needs,
            self.references.providers,
            sizes=self._state_sizes,
            around=self.accelerator.autocast,
            balance=prepared.balance,
        )
        self.update = self._update_rule()
        self._monitored = frozenset(MONITORED[name] for name in prepared.kind.monitors)

    def _start(self) -> dict[str, Any]:
        """Hashes of the models that training starts from, and the optimizer that was given, if one was."""
        specs = self.prepared.specs
        others = [
            name for name, kind in self.prepared.served.items() if kind == "checkpoint" and name in specs
        ]
        return {
            **identity.of_start(self.prepared.policy),
            "references": identity.of_references(self.references, others),
            "optimizer": identity.of_optimizer(self.optimizer),
        }

    def _samples(
        self, settings: SampleSettings, judge: Judging | None, args: PreferenceArguments
    ) -> Samples | None:
        """The callback that draws samples; None where none are drawn."""
        if self.prepared.train is None:
            return None
        kind, length = self.prepared.kind, args.max_length
        name, data = next(iter(self.prepared.held_out.items()), ("", self.prepared.train))
        prompts, options = samples_of(kind, getattr(data, "source", ()), settings, args, judge)
        if not prompts:
            return None
        return Samples(
            Path(args.output_dir or ".") / "samples.jsonl",
            settings,
            prompts,
            lambda model: kind.sample(model, prompts, args.seed, length, **options),
            kind.sampling(length, **options),
            self._log_apart,
            self._aside,
            lambda: self._stop.stopped,
            judge,
            name,
        )

    def _log_apart(self, logs: dict[str, float]) -> None:
        """Log numbers on their own; those of the step are logged as they would be without."""
        wanted = self.control.should_log
        self.log(logs)
        self.control.should_log = wanted

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Around what is done between steps: its time is not that of training."""
        began = time.monotonic()
        yield
        self._steps.since += time.monotonic() - began

    def _state_sizes(self, name: str) -> Sizes:
        """How wide and how many the states of the model of that name are."""
        provider = self.references.providers.get(name)
        return self.prepared.kind.state_sizes(self.prepared.policy if provider is None else provider.model)

    def _update_rule(self) -> UpdateRule:
        """The rule that the objective names; else its gradient, of each micro-batch alone or, unless it is a
        sum over examples, of the whole step.

        Raises :class:`PreferoError` for a sum with a part that names a rule: a sum steps by its gradient.
        """
        objective = self.objective
        if objective.update is not None:
            return RULES[objective.update](objective, self.scorer, self._ranks)
        for part in objective.modules():
            if isinstance(part, Objective) and part.update is not None:
                raise PreferoError(
                    f"{part.key or type(part).__name__} steps by a rule of its own ({part.update}), so it "
                    "cannot be added to another objective"
                )
        rule = BackwardAndStep if self.prepared.needs.exact else WholeStep
        return rule(objective, self.scorer, self._ranks)

    def _add_callbacks(self, recipe: Mapping[str, Any]) -> None:
        """Add what acts between steps, in its order: models change first, then references follow them. What
        these remember is kept in checkpoints, each in a file of its name."""
        args, references = self.args, self.references
        trained, moving = references.trained, references.moving
        self.kept = {f"moving-{name}": reference for name, reference in moving.items()}
        self.kept |= {f"trained-{name}": auxiliary for name, auxiliary in trained.items()}
        callbacks: list[TrainerCallback] = []
        if args.early_stopping_patience is not None:
            if self.early_stopping:
                raise PreferoError(
                    "training.early_stopping_patience is set, and callbacks hold an EarlyStoppingCallback "
                    "too: leave one of the two out"
                )
            callbacks.append(EarlyStopping(args.early_stopping_patience, args.early_stopping_threshold))
        if isinstance(self.update, FastSlowStep):
            self.kept["fast-slow"] = self.update
            callbacks.append(TakingTurns(self.update, trained.get("slow")))
        if args.extrapolation is not None and self.plan is not None:
            if self.launcher_shards:
                raise PreferoError(
                    "training.extrapolation does not reach weights that a launcher shards: use "
                    "training.parallel=fsdp"
                )
            every = args.extrapolation_every or self.plan.steps_per_epoch
            extrapolation = Extrapolation(self.model, references, args.extrapolation, every)
            self.kept["extrapolation"] = extrapolation
            callbacks.append(extrapolation)
        if moving:
            callbacks.append(FollowPolicy(list(moving.values())))
        if trained or self.objective_weights:
            unwrapped = UnwrappedWeights(self.objective_weights, list(trained.values()), self.accelerator)
            callbacks.append(unwrapped)
        if self.plan is not None:
            self._batches = RankBatches(self.plan, args.process_index)
            callbacks.append(FollowPlan(self._batches))
        folder = Path(args.output_dir)
        sampling = "" if self.samples is None else self.samples.sampling
        self.run_folder = RunFolder(folder, described(self.prepared, recipe, sampling), self._why_stopped)
        self.remove_callback(PrinterCallback)  # metrics.jsonl has it all
        begin = AtStart(self._restore_unlogged)
        for callback in (*callbacks, begin, self.run_folder, MonitorCallback(folder), self._stop):
            self.add_callback(callback)

    def _why_stopped(self) -> str | None:
        """Why training has stopped before its last step; None for a signal."""
        if self._stop.stopped:
            return None
        for callback in self.early_stopping:
            if callback.early_stopping_patience_counter >= callback.early_stopping_patience:
                return early_stop(str(self.args.metric_for_best_model), callback)
        return "a callback stopped it"

    # What is trained and measured on

    def _loader(self, batches: RankBatches, data: Any) -> DataLoader:
        """Micro-batches with the columns that are needed and the log-probabilities that are cached."""
        needs, args = self.prepared.needs, self.args
        cached = {name: model.logps for name, model in self.references.cached.items()}
        collate = Collator(self.prepared.kind, needs.columns, needs.views, cached, batches.plan.seed)
        return loader_of(DrawnItems(data), args, batch_sampler=batches, collate_fn=collate)

    def get_train_dataloader(self) -> DataLoader:
        if self.plan is None:
            raise PreferoError("there is nothing to train on: give a train_dataset")
        return self._loader(self._batches, self.train_dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        data = self.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else eval_dataset
        data = self.eval_dataset if data is None else data
        if not any(data is known for known in (self.train_dataset, *self.prepared.held_out.values())):
            raise PreferoError("held-out data are given as eval_dataset when the trainer is made")
        plan = self.prepared.plan(data, shuffle=False)
        return self._loader(RankBatches(plan, self.args.process_index), data)

    # Models that are not trained

    def _prepare_references(self) -> None:
        """Fill the disk cache where it has gaps, by models as they were at the start; the processes share the
        work."""
        if self._references_ready or (self.launcher_shards and self.model_wrapped is self.prepared.policy):
            return  # what the launcher shards is in place once training has begun
        prepared, args, accelerator = self.prepared, self.args, self.accelerator
        items = [item for data in (prepared.train, *prepared.held_out.values()) for item in data or ()]
        shows = accelerator.is_local_main_process and not args.disable_tqdm
        with accelerator.autocast():
            fill_cache(
                self.references,
                prepared.kind,
                cast("list[TokenExample]", items),  # whose cells the cache knows, see Kind.redrawn
                tokens_per_row=prepared.tokens_per_row,
                device=args.device,
                share=CacheShare(args.process_index, args.world_size, accelerator.wait_for_everyone),
                progress=partial(tqdm, leave=False) if shows else None,
            )
        self._references_ready = True

    # Optimizer steps

    @named_as_given
    def train(
        self, resume_from_checkpoint: bool | str | Path | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Train, from the start or from a checkpoint; then measure held-out data once more, for
        ``evaluation.json``. The model is saved by ``save_model()``.

        ``resume_from_checkpoint`` is True for the latest whole checkpoint of the output folder, ``"auto"``
        for that or the start, or a checkpoint's folder. Ctrl-C (or SIGTERM) lets the optimizer step end,
        writes a checkpoint and raises :class:`KeyboardInterrupt` saying how to resume.

        Raises:
            PreferoError: where the output folder holds another run or is in use, or the checkpoint is another
                run's; and where the run cannot go on: a step has no finite loss or gradient, a file cannot be
                written, or the folder is gone.
        """
        with self.running():
            checkpoint = self._starting_point(resume_from_checkpoint or self.args.resume_from_checkpoint)
            self._prepare_references()
            # transformers would look at these by itself, and take a checkpoint that was cut off.
            self.args.resume_from_checkpoint = None
            with self._stop.listening():
                result = super().train(None if checkpoint is None else str(checkpoint), *args, **kwargs)
            self.trained = not self._stop.stopped
            if self.trained:
                self._write_evaluation()
        if self._stop.stopped:
            stopped = f"stopped after step {self.state.global_step} of {self.state.max_steps}"
            if self.args.save_only_model:
                raise KeyboardInterrupt(
                    f"{stopped}; the model is in {self.args.output_dir}, and the run cannot be resumed, "
                    "because training.save_only_model leaves the optimizer out"
                )
            raise KeyboardInterrupt(
                f"{stopped}; the checkpoint is in {self.args.output_dir}: resume with "
                "training.resume_from_checkpoint=true"
            )
        return result

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        if not self._steps.tokens:  # what was done between two logs and is no step takes no time of theirs
            self._steps.since = time.monotonic()
        batches = list(islice(epoch_iterator, num_batches))
        self.update.begin(batches)
        return batches, None

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs.to(self.args.device)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        step, last = self.state.global_step + 1, self.state.max_steps
        logs = step % (self.state.logging_steps or 1) == 0 or step == last
        logs = logs or (step == 1 and self.args.logging_first_step)
        self.objective.train()
        share = self.update.share(model, inputs, self._monitored if logs else frozenset(), self._progress)
        self._steps.add(inputs, share, self.objective)
        return (share.loss, {}) if return_outputs else share.loss

    @property
    def _progress(self) -> float:
        return self.state.global_step / max(self.state.max_steps, 1)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: a micro-batch may go through several models, and more than once."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self._steps.drain()
        super().log(logs, start_time)

    @named_as_given
    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], Mapping[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], float | Sequence[float]] | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "minimize",
        backend: Any = None,
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """Train with settings that Optuna proposes, and return the best: as
        :meth:`transformers.Trainer.hyperparameter_search`, which has the same arguments.

        Each trial is a trainer of its own, made from the arguments of this one and ``model_init``, in the
        folder ``run-0``, ``run-1``, … of the output folder; they share the cache of reference scores.
        ``model_init`` may take the trial. ``hp_space`` returns settings by the names of
        :class:`PreferenceArguments`, and the method and its arguments as ``objective`` and
        ``objective.beta``; by default the learning rate and the number of epochs.
        ``compute_objective`` makes a number of the metrics of an evaluation, by default ``eval_loss`` to
        minimise or ``eval_rewards/accuracies`` to maximise. ``kwargs`` are options of Optuna's
        ``create_study``, and its ``timeout``, ``catch`` and ``gc_after_trial``; the sampler is TPE with the
        seed of the arguments. A trial whose loss is not finite counts as pruned.

        Raises :class:`PreferoError` without ``model_init`` or held-out data, for another ``backend`` than
        ``"optuna"``, and for an unknown setting.
        """
        return search(
            self._given,
            type(self),
            hp_space,
            compute_objective,
            n_trials,
            direction,
            backend,
            hp_name,
            **kwargs,
        )

    # Held-out examples

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        self._prepare_references()
        return super().evaluate(*args, **kwargs)

    def _evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with _known_metric():
            return super()._evaluate(*args, **kwargs)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        wanted = str(self.args.metric_for_best_model).removeprefix("eval_")
        if self.samples is not None and is_metric(wanted) and f"eval_{wanted}" not in metrics:
            return False  # the judge has failed, which was said
        with _known_metric():
            return super()._determine_best_metric(metrics, trial)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        *args: Any,
        metric_key_prefix: str = "eval",
        **kwargs: Any,
    ) -> EvalLoopOutput:
        with self._aside():
            evaluated = self._evaluated(dataloader)
        step, latest = self.state.global_step, self._latest
        self._latest = step, {**(latest[1] if latest[0] == step else {}), metric_key_prefix: evaluated}
        means = evaluated.means()
        if self.compute_metrics is not None:
            own = self.compute_metrics(EvalPrediction(evaluated.predictions(), None))  # type: ignore[arg-type]
            means |= {name.removeprefix(f"{metric_key_prefix}_"): value for name, value in own.items()}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        nothing: Any = None
        return EvalLoopOutput(nothing, nothing, metrics, evaluated.examples)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: no logits are kept."""
        raise PreferoError(
            "predict cannot be called, because no logits are kept: evaluate_examples() measures held-out "
            "examples one by one, and prefero.evaluate.rewards scores the responses of any others"
        )

    def evaluate_examples(self, eval_dataset: Any = None) -> Evaluated:
        """Every metric of every held-out example, in the order of the data; all processes have to ask."""
        self._prepare_references()
        return self._evaluated(self.get_eval_dataloader(eval_dataset))

    def _write_evaluation(self) -> None:
        """Write what held-out data say of the model as it is kept: the rows of ``evaluation.json``. They are
        measured again only if training did not end with that."""
        method = self.prepared.method
        step, latest = self._latest
        known = latest if step == self.state.global_step else {}
        rows: list[dict[str, Any]] = []
        for name, data in self.prepared.held_out.items():
            evaluated = known.get(f"eval_{name}".rstrip("_")) or self.evaluate_examples(data)
            if not math.isfinite(evaluated.loss) and not self.args.logging_nan_inf_filter:
                raise NotFiniteError(
                    f"stopped after step {self.state.global_step}: the held-out loss is {evaluated.loss}, "
                    "and the model is of no use. A smaller training.learning_rate or more warm-up may help"
                )
            row = held_out_row(f"{method}, {name}" if name else method, evaluated)
            rows.append({**row, "held_out": name} if name else row)
        if self.samples is not None and (judged := self.samples.row):
            first: dict[str, Any] = rows[0] if rows else {"method": method, "interval": {}}
            rows[:1] = [{**first, **judged, "interval": {**first["interval"], **judged["interval"]}}]
        self.measured = rows
        if rows and self.is_world_process_zero():
            write_json(Path(str(self.args.output_dir)) / "evaluation.json", {"rows": rows})

    def create_model_card(self, **head: Any) -> None:  # type: ignore[override]  # by name only
        """Write the card of the model to the output folder: :func:`prefero.training.card.card`, whose
        ``head`` the options of :meth:`transformers.Trainer.create_model_card` are."""
        if self.is_world_process_zero():
            self.write_card(Path(str(self.args.output_dir)), **head)

    def _evaluated(self, dataloader: DataLoader) -> Evaluated:
        with self.accelerator.autocast():
            return evaluate(
                self.model_wrapped,
                dataloader,
                self.objective,
                self.scorer,
                self._ranks,
                batches_per_step=dataloader.batch_sampler.plan.micro_batches,  # type: ignore[union-attr]
                exact=self.prepared.needs.exact,
                extra=self._monitored,
                progress=self._progress,
            )


@dataclass(eq=False)
class FollowPlan(TrainerCallback):
    """Tells the sampler of training its epoch, and logs the last step."""

    batches: RankBatches

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # transformers reaches the sampler only where it is wrapped
        self.batches.epoch = state.global_step // self.batches.plan.steps_per_epoch

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step == state.max_steps:
            control.should_log = True  # a run shorter than the logging interval is seen too


@contextmanager
def _known_metric() -> Iterator[None]:
    """Raise :class:`PreferoError` where ``metric_for_best_model`` is none that evaluation gives."""
    try:
        yield
    except KeyError as error:
        found = re.search(r"metric_for_best_model.* set to '(\S+)'.*\[(.*)\]", str(error.args[0]))
        if found is None:
            raise
        wanted, there = found[1], found[2].replace("'", "")
        raise PreferoError(
            f"training.metric_for_best_model is {wanted}, which evaluation does not give; it gives {there}"
        ) from error


def _use(optimizers: tuple[torch.optim.Optimizer | None, Any], args: PreferenceArguments) -> None:
    """Say which settings are not used because an optimizer or a schedule is given, and take the learning rate
    from the optimizer, for the record."""
    optimizer, schedule = optimizers
    unused = given_of(args, "optimizer") if optimizer is not None else ""
    if schedule is not None:
        unused = ", ".join(filter(None, [unused, given_of(args, "schedule")]))
    if unused and args.process_index == 0:
        logger.warning("not used, because optimizers are given: %s", as_arguments(unused))
    if optimizer is not None:
        args.learning_rate = float(optimizer.param_groups[0]["lr"])
