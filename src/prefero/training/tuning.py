"""Settings that Optuna proposes: for the trials of a sweep, and for the search of a trainer."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import BestRun

from prefero.errors import PreferoError, nearest
from prefero.training.config import OWN, PreferenceArguments, read_settings
from prefero.training.overrides import override
from prefero.training.resuming import NotFiniteError
from prefero.training.vocabulary import TAKEN

if TYPE_CHECKING:
    from prefero.training.trainer import PreferenceTrainer

TRIES = 20
"""Proposals of which the first is taken that no earlier trial had."""

_NUMBER = r"[-+]?(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})")


def is_range(text: str) -> bool:
    """Whether a text is meant as a :class:`Range`."""
    return text.startswith("log:") or bool(_RANGE.fullmatch(text))


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, whole ones if both are; uniform, or with ``log`` uniform in the
    logarithm."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def parse(cls, key: str, text: str) -> Range:
        """``1..8``, ``0.1..0.5`` or ``log:1e-7..1e-5``. Raises :class:`PreferoError` for anything else."""
        found = _RANGE.fullmatch(text.strip())
        if found is None:
            raise PreferoError(
                f"{key} is {text!r}: give a list of values, or a range such as 0.1..0.5 or log:1e-7..1e-5"
            )
        low, high = (int(end) if re.fullmatch(r"[-+]?\d+", end) else float(end) for end in found.groups()[1:])
        if not low < high or (found[1] and low <= 0):
            least = "two ends, the lower one first" + (" and above 0" if found[1] else "")
            raise PreferoError(f"{key} is {text!r}: a range has {least}")
        whole = isinstance(low, int) and isinstance(high, int)
        return cls(low, high, bool(found[1])) if whole else cls(float(low), float(high), bool(found[1]))

    @property
    def ends(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"{'log:' if self.log else ''}{self.low}..{self.high}"


def optuna() -> Any:
    """The library, if it is installed, or :class:`PreferoError` saying how to install it."""
    try:
        import optuna
    except ImportError:
        raise PreferoError('trials are proposed by Optuna: pip install "prefero[sweep]"') from None
    return optuna


@contextmanager
def _quiet() -> Iterator[Any]:
    """Optuna without its lines on studies that are made for one proposal."""
    library = optuna()
    before = library.logging.get_verbosity()
    library.logging.set_verbosity(library.logging.WARNING)
    try:
        yield library
    finally:
        library.logging.set_verbosity(before)


def suggested(
    space: Mapping[str, Range | Sequence[Any]],
    seed: int,
    number: int,
    history: Sequence[tuple[Mapping[str, Any], float]],
    *,
    higher: bool,
) -> dict[str, Any]:
    """The values of the trial of that number, by Optuna's tree-structured Parzen estimator (TPE) from the
    values and results of those before: a function of its arguments, so that a sweep that was interrupted
    continues with the same trials."""
    with _quiet() as library:
        tried = [_written(values) for values, _ in history]
        for attempt in range(TRIES):
            mixed = int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0])
            study = library.create_study(
                direction="maximize" if higher else "minimize",
                sampler=library.samplers.TPESampler(seed=mixed),
            )
            distributions = {key: _distribution(library, one) for key, one in space.items()}
            for values, result in history:
                numbers = {key: _number(space[key], values[key]) for key in space}
                study.add_trial(
                    library.trial.create_trial(params=numbers, distributions=distributions, value=result)
                )
            drawn = study.ask(distributions).params
            proposal = {
                key: drawn[key] if isinstance(one, Range) else one[drawn[key]] for key, one in space.items()
            }
            if _written(proposal) not in tried:
                break
        return proposal


def _distribution(library: Any, values: Range | Sequence[Any]) -> Any:
    if not isinstance(values, Range):
        return library.distributions.CategoricalDistribution(range(len(values)))
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    kind = library.distributions.IntDistribution if whole else library.distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _number(values: Range | Sequence[Any], value: Any) -> Any:
    """A value as Optuna knows it: one of a list, which may hold lists, by its place."""
    return value if isinstance(values, Range) else [_written(one) for one in values].index(_written(value))


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)  # in which True is not 1


# The search of a trainer


def search(
    given: Mapping[str, Any],
    make_trainer: Callable[..., PreferenceTrainer],
    hp_space: Callable[[Any], Mapping[str, Any]] | None,
    compute_objective: Callable[[dict[str, float]], float | Sequence[float]] | None,
    n_trials: int,
    direction: str | list[str],
    backend: Any,
    hp_name: Callable[[Any], str] | None,
    **options: Any,
) -> BestRun | list[BestRun]:
    """The best of trainers that are made from what one was ``given``, with the settings of each trial
    (:meth:`~prefero.training.trainer.PreferenceTrainer.hyperparameter_search`)."""
    args: PreferenceArguments = given["args"]
    several = not isinstance(direction, str)
    _refuse_search(given, backend, options, needs_objective=several and compute_objective is None)
    library = optuna()
    score = compute_objective or (lambda metrics: _measured(metrics, str(direction)))

    def run(trial: Any) -> Any:
        values = dict((hp_space or _default_space)(trial))
        name = f"run-{trial.number}" if hp_name is None else hp_name(trial)
        arguments, objective = _with(args, given["objective"], values, Path(str(args.output_dir)) / name)
        callbacks = list(map(copy.copy, given["callbacks"] or ()))  # some count what one run does
        if not several:
            callbacks.append(ReportToTrial(trial, score, library.TrialPruned))
        trainer = make_trainer(**{**given, "args": arguments, "objective": objective, "callbacks": callbacks})
        try:
            trainer.train()
            return score(trainer.evaluate())
        except NotFiniteError as error:
            raise library.TrialPruned(str(error)) from None

    optimize: dict[str, Any] = {name: options.pop(name) for name in ("timeout", "catch") if name in options}
    optimize["gc_after_trial"] = options.pop("gc_after_trial", True)
    options.setdefault("sampler", library.samplers.TPESampler(seed=args.seed))
    aim = {"directions": direction} if several else {"direction": direction}
    study = library.create_study(**aim, **options)
    study.optimize(run, n_trials=n_trials, **optimize)
    if several:
        return [BestRun(str(best.number), best.values, best.params) for best in study.best_trials]
    if not any(trial.state == library.trial.TrialState.COMPLETE for trial in study.trials):
        raise PreferoError(
            f"none of {len(study.trials)} trials was trained to its end: make hp_space narrower"
        )
    best = study.best_trial
    return BestRun(str(best.number), best.value, best.params)


def _refuse_search(
    given: Mapping[str, Any], backend: Any, options: dict[str, Any], *, needs_objective: bool
) -> None:
    """Raise :class:`PreferoError` for a search that cannot be made, before the first trial."""
    named = getattr(backend, "value", backend)
    if named not in (None, "optuna"):
        raise PreferoError(f"backend is {named!r}: hyperparameter_search uses 'optuna'")
    if given["model_init"] is None:
        raise PreferoError(
            "hyperparameter_search trains from the start many times: give model_init, a function that makes "
            "the model, in place of model"
        )
    if given["eval_dataset"] is None:
        raise PreferoError("hyperparameter_search compares its trials on held-out data: give eval_dataset")
    if any(part is not None for part in given["optimizers"]):
        raise PreferoError(
            "optimizers hold the weights of one model: a search makes them by optim and others"
        )
    if options.pop("n_jobs", 1) != 1:
        raise PreferoError("n_jobs cannot be set: trials are trained one after another")
    if given["args"].world_size > 1:
        raise PreferoError("hyperparameter_search runs in one process")
    if needs_objective:
        raise PreferoError("with several directions, give compute_objective, which returns a number for each")


def _with(
    args: PreferenceArguments, objective: Any, values: Mapping[str, Any], folder: Path
) -> tuple[PreferenceArguments, Any]:
    """The arguments and the objective of a trial. Raises :class:`PreferoError` for a name that is none."""
    inner = {key: value for key, value in values.items() if key.startswith("objective.")}
    own = read_settings({key: value for key, value in values.items() if key not in inner})
    settings = {name: getattr(args, name) for name in sorted(TAKEN | OWN)}
    known = [each.name for each in fields(PreferenceArguments)]
    for name in own:
        if name not in known:
            raise PreferoError(f"hp_space gives {name!r}, which is no argument{nearest(name, known)}")
    if inner and not isinstance(objective, str | Mapping):
        raise PreferoError(
            f"hp_space gives {', '.join(inner)}: give the trainer's objective as a name or a mapping, whose "
            "arguments can be replaced"
        )
    if inner:
        objective = override({"objective": objective}, inner.items())["objective"]
    return PreferenceArguments(**{**settings, **own, "output_dir": str(folder)}), objective


def _default_space(trial: Any) -> dict[str, Any]:
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-7, 1e-4, log=True),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 1, 3),
    }


def _measured(metrics: Mapping[str, float], direction: str) -> float:
    """The metric that is minimised or maximised by default, or :class:`PreferoError` where it is missing."""
    name = "eval_loss" if direction == "minimize" else "eval_rewards/accuracies"
    if name not in metrics:
        raise PreferoError(
            f"to {direction}, trials are compared by {name}, and there are {', '.join(metrics)}: give "
            "compute_objective"
        )
    return metrics[name]


@dataclass(eq=False)
class ReportToTrial(TrainerCallback):
    """Tells a trial of Optuna each evaluation, and ends the run where the study's pruner says so."""

    trial: Any
    score: Callable[[dict[str, float]], Any]
    pruned: type[Exception]
    step: int = -1

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if metrics is not None and state.global_step != self.step:
            self.step = state.global_step
            self.trial.report(self.score(metrics), self.step)
            if self.trial.should_prune():
                raise self.pruned(f"stopped at step {self.step}")
