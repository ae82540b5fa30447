"""Settings that Optuna proposes: for the trials of a sweep, and for the search of a trainer."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import math
import re
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import BestRun

from prefero.errors import PreferoError, nearest, number_of
from prefero.training.config import OWN, PreferenceArguments, read_settings
from prefero.training.overrides import override
from prefero.training.resuming import NotFiniteError
from prefero.training.vocabulary import TAKEN

if TYPE_CHECKING:
    from prefero.training.trainer import PreferenceTrainer

TRIES = 20
"""Proposals of which the first is taken that no earlier trial had."""

_NUMBER = r"[-+]?(?:\d+(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?\s*({_NUMBER})\s*\.\.\s*({_NUMBER})", re.IGNORECASE)


def is_range(text: str) -> bool:
    """Whether a text is meant as a :class:`Range`."""
    return text.lower().startswith("log:") or bool(_RANGE.fullmatch(text))


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
        if not low < high or not math.isfinite(high - low) or (found[1] and low <= 0):
            least = "two finite ends, the lower one first" + (" and above 0" if found[1] else "")
            raise PreferoError(f"{key} is {text!r}: a range has {least}")
        whole = isinstance(low, int) and isinstance(high, int)
        return cls(low, high, bool(found[1])) if whole else cls(float(low), float(high), bool(found[1]))

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def size(self) -> float:
        """How many numbers there are."""
        return self.high - self.low + 1 if self.whole else math.inf

    @property
    def probes(self) -> tuple[float, ...]:
        """Numbers that stand for all: both ends, and one between them that is not whole where most are
        not."""
        return (
            (self.low, self.high)
            if self.whole
            else (self.low, self.high, self.low + (self.high - self.low) / math.pi)
        )

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
    history: Sequence[tuple[Mapping[str, Any], float | None]],
    *,
    higher: bool,
) -> dict[str, Any]:
    """The values of the trial of that number, by Optuna's tree-structured Parzen estimator (TPE) from the
    values and results of those before, None of one that failed: a function of its arguments, so that a sweep
    that was interrupted continues with the same trials. None is proposed twice, as long as there are
    others."""
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
                states = library.trial.TrialState
                trial = library.trial.create_trial(
                    params=numbers,
                    distributions=distributions,
                    value=result,
                    state=states.PRUNED if result is None else states.COMPLETE,  # worse than all the others
                )
                study.add_trial(trial)
            drawn = study.ask(distributions).params
            proposal = {
                key: drawn[key] if isinstance(one, Range) else one[drawn[key]] for key, one in space.items()
            }
            if _written(proposal) not in tried:
                return proposal
    if all(not isinstance(one, Range) or one.whole for one in space.values()):
        every = (_all(one) for one in space.values())
        left = (dict(zip(space, values, strict=True)) for values in itertools.product(*every))
        proposal = next((values for values in left if _written(values) not in tried), proposal)
    return proposal


def _all(values: Range | Sequence[Any]) -> Sequence[Any]:
    return range(int(values.low), int(values.high) + 1) if isinstance(values, Range) else values


def _distribution(library: Any, values: Range | Sequence[Any]) -> Any:
    if not isinstance(values, Range):
        return library.distributions.CategoricalDistribution(range(len(values)))
    kind = library.distributions.IntDistribution if values.whole else library.distributions.FloatDistribution
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
    aims = [direction] if isinstance(direction, str) else list(direction or ())
    several = not isinstance(direction, str)
    _refuse_search(given, backend, options, aims, n_trials, default=compute_objective is None)
    library = optuna()
    score = partial(
        _scored, compute_objective or partial(_measured, direction=aims[0]), several and len(aims)
    )
    names: set[str] = set()
    made: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    ended: list[str] = []

    def run(trial: Any) -> Any:
        values = (hp_space or _default_space)(trial)
        name = f"run-{trial.number}" if hp_name is None else hp_name(trial)
        _refuse_name(name, names)
        arguments, objective = _with(args, given["objective"], values, Path(str(args.output_dir)) / name)
        callbacks = list(map(copy.copy, given["callbacks"] or ()))  # some count what one run does
        if not several:
            callbacks.append(ReportToTrial(trial, score, library.TrialPruned, _held_out(given)))

        def model_init() -> nn.Module:
            model = model_from(given["model_init"], trial)
            if model in made:
                raise PreferoError(
                    "model_init returned the model that an earlier trial has trained: let it make a new one"
                )
            made.add(model)
            return model

        changed = {
            "args": arguments,
            "objective": objective,
            "callbacks": callbacks,
            "model_init": model_init,
        }
        trainer = make_trainer(**{**given, **changed})
        try:
            trainer.train()
            return score(trainer.evaluate())
        except NotFiniteError as error:
            ended.append(str(error))
            raise library.TrialPruned(str(error)) from None

    optimize: dict[str, Any] = {name: options.pop(name) for name in ("timeout", "catch") if name in options}
    optimize["gc_after_trial"] = options.pop("gc_after_trial", True)
    options.setdefault("sampler", library.samplers.TPESampler(seed=args.seed))
    aim: dict[str, Any] = {"directions": aims} if several else {"direction": direction}
    study = library.create_study(**aim, **options)
    study.optimize(run, n_trials=n_trials, **optimize)
    if not any(trial.state == library.trial.TrialState.COMPLETE for trial in study.trials):
        last = f"; the last {ended[-1]}" if ended else ""
        raise PreferoError(f"none of the trials has a result{last}")
    if several:
        return [BestRun(str(best.number), best.values, best.params) for best in study.best_trials]
    best = study.best_trial
    return BestRun(str(best.number), best.value, best.params)


def model_from(model_init: Callable[..., nn.Module], trial: Any = None) -> nn.Module:
    """The model of a function that takes nothing, or a trial of the search, None for a run of its own. Raises
    :class:`PreferoError` for one that takes more."""
    try:
        parameters = inspect.signature(model_init).parameters.values()
    except (TypeError, ValueError):  # of a function that is not written in Python
        return model_init()
    needed = [
        each
        for each in parameters
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if len(needed) > 1:
        raise PreferoError(
            f"model_init takes {', '.join(each.name for each in needed)}: it takes nothing, or a trial"
        )
    named = [each for each in parameters if each.name == "trial" and each.kind is not each.VAR_POSITIONAL]
    taken = next(iter(needed or named), None)
    if taken is None:
        return model_init()
    return model_init(trial) if taken.kind is not taken.KEYWORD_ONLY else model_init(**{taken.name: trial})


def _held_out(given: Mapping[str, Any]) -> int:
    """How many sets of held-out data there are."""
    return len(given["eval_dataset"]) if isinstance(given["eval_dataset"], dict) else 1


def _refuse_name(name: Any, taken: set[str]) -> None:
    """Raise :class:`PreferoError` for the name of a run that is none of a folder, or another's; add it."""
    if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
        raise PreferoError(f"hp_name returned {name!r}: it returns the name of a folder in output_dir")
    if name.lower() in taken:
        raise PreferoError(f"hp_name returned {name!r} for two trials: name each differently")
    taken.add(name.lower())


def _scored(
    compute: Callable[[dict[str, float]], float | Sequence[float]], aims: int, metrics: dict[str, float]
) -> float | Sequence[float]:
    """The result that a trial is compared by: a number, or with several ``aims`` one for each. Raises
    :class:`NotFiniteError` for NaN, and :class:`PreferoError` for what is no number."""
    result = compute(metrics)
    numbers: list[Any] = list(result) if aims and isinstance(result, Sequence) else [result]
    try:
        undefined = any(math.isnan(float(number)) for number in numbers)
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != (aims or 1):
        wanted = f"{number_of(aims, 'number')}, one for each direction" if aims else "a number"
        raise PreferoError(f"compute_objective returned {result!r}: it returns {wanted}")
    if undefined:
        raise NotFiniteError(f"would be compared by {result!r}, which is no number")
    return result


def _refuse_search(
    given: Mapping[str, Any],
    backend: Any,
    options: dict[str, Any],
    aims: Sequence[Any],
    n_trials: int | None,
    *,
    default: bool,
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
    if not aims or any(aim not in ("minimize", "maximize") for aim in aims):
        told = ", ".join(map(repr, aims)) or "empty"
        raise PreferoError(f"direction is {told}: it is 'minimize' or 'maximize', or a list of these")
    if default and len(aims) > 1:
        raise PreferoError("with several directions, give compute_objective, which returns a number for each")
    if default and _held_out(given) > 1:
        first = next(iter(given["eval_dataset"]))
        raise PreferoError(
            "there are several sets of held-out data: give compute_objective, which returns what trials are "
            f"compared by, such as lambda metrics: metrics['eval_{first}_loss']"
        )
    if n_trials is not None and n_trials < 1:
        raise PreferoError(f"n_trials is {n_trials}: there is at least one")


def _with(
    args: PreferenceArguments, objective: Any, values: Any, folder: Path
) -> tuple[PreferenceArguments, Any]:
    """The arguments and the objective of a trial. Raises :class:`PreferoError` for a name that is none."""
    if not isinstance(values, Mapping):
        raise PreferoError(f"hp_space returned {values!r}: it returns a mapping of settings to values")
    inner = {key: value for key, value in values.items() if key.partition(".")[0] == "objective"}
    own = read_settings({key: value for key, value in values.items() if key not in inner})
    settings = {name: getattr(args, name) for name in sorted(TAKEN | OWN)}
    known = [each.name for each in fields(PreferenceArguments)]
    for name in own:
        if name in _OF_THE_SEARCH:
            raise PreferoError(
                f"hp_space gives {name}, which the trials have in common: give it to the trainer"
            )
        section, _, last = name.rpartition(".")
        if section:
            raise PreferoError(
                f"hp_space gives {last!r} with {section!r} before it: arguments of the trainer stand alone, "
                "such as 'learning_rate', and only those of the method have a section, 'objective'"
            )
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


_OF_THE_SEARCH = {"output_dir", "overwrite", "resume_from_checkpoint"}


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
    """Tells a trial of Optuna each evaluation on all ``held_out`` sets, and ends the run where the study's
    pruner says so."""

    trial: Any
    score: Callable[[dict[str, float]], Any]
    pruned: type[Exception]
    held_out: int
    step: int = -1
    found: list[dict[str, float]] = field(default_factory=list)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if metrics is None or state.global_step == self.step:
            return
        self.found.append(metrics)
        if len(self.found) == self.held_out:
            self.step = state.global_step
            self.trial.report(self.score(dict(ChainMap(*self.found))), self.step)
            self.found.clear()
            if self.trial.should_prune():
                raise self.pruned(f"stopped at step {self.step}")
