"""A paper of the survey: a citation, and evidence that is measured each time it is asked for.

A module of a paper holds one :class:`Paper`, called ``PAPER``::

    PAPER = Paper(
        id="p053",
        title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        citation="Rafailov et al., 2023, arXiv 2305.18290",
        adds="A policy is its own reward model, so a logistic loss on pairs does for reinforcement learning.",
        methods=("dpo",),
        evidence=(Claim(...),),
    )

and lies in the folder of its area, ``prefero_lab/papers/<area>/<key>.py``; its name is the paper's key.
Nothing else has to be told about it. Evidence is a :class:`Claim` (something is trained, and compared over
seeds) or, where small models cannot show what the paper says, a :class:`Check` (an identity, a limit, a
mechanism).

Such a module imports nothing heavy at its top: listing 150 papers must not load 150 worlds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from prefero.errors import PreferoError

FIRST_JUDGED_SEED = 100
"""Seeds from here on are judged; those below are for tuning, tests and looking around."""

Made = TypeVar("Made")
Model = TypeVar("Model")

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""The log of a training run: names of metrics → (optimizer step, value)."""


@dataclass(frozen=True)
class Trained(Generic[Model]):
    """A model after training, and what was logged meanwhile."""

    model: Model
    curves: Curves = field(default_factory=dict)


class Experiment(Protocol[Made, Model]):
    """An experiment: start and data are made, a model is trained and measured. The runner calls, for every
    seed that is not on disk yet::

        made = experiment.make(seed)
        model = experiment.train(made, arm.settings, seed).model   # or experiment.start(made)
        numbers = experiment.measure(made, model, seed)

    All arms of a claim have the same experiment: the same start, data and budget. Ready ones are
    :class:`prefero_lab.papers.text.TextExperiment` for language-model worlds, and, for whatever
    :class:`~prefero.training.trainer.PreferenceTrainer` can train,
    :func:`prefero_lab.papers.training.trained`, which is the body of a ``train`` of one's own.
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that its numbers depend on besides code, as JSON. Results on disk are used again only
        if these, the module of the experiment's class, and the arm's settings are the same."""
        ...

    def make(self, seed: int) -> Made:
        """Start model and data of one seed. Everything random in it follows from the seed."""
        ...

    def start(self, made: Made) -> Model:
        """The model as it is before training: the arm :data:`START`."""
        ...

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Model]:
        """A model trained from the start with the settings of an arm. ``made`` must be left as it is."""
        ...

    def measure(self, made: Made, model: Model, seed: int) -> Mapping[str, Sequence[float]]:
        """Numbers of held-out prompts by the name of the metric. The i-th number belongs to the same prompt
        under the same noise for every arm; what is known only as a whole is a sequence of one."""
        ...


@dataclass(frozen=True)
class Arm:
    """One way of training.

    ``settings`` is what the experiment's ``train`` gets; None trains nothing. ``grid`` maps names of settings
    to the values among which the given one was chosen, on tuning seeds alone: ``--tune`` chooses again.
    """

    name: str
    settings: Mapping[str, Any] | None = None
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)


START = Arm("start")
"""The model that all other arms start from."""


@dataclass(frozen=True)
class Expectation:
    """That the ``treatment`` has a ``metric`` higher (lower) than the ``baseline``, both names of arms.

    ``by``, in units of the metric, is the smallest difference that would do. Below 0 it says how much worse
    the treatment may be: ``Expectation("dpo", "start", "valid", by=-0.05)`` is "not lower by more than 0.05".
    :func:`prefero_lab.papers.verdicts.judged` has the rule. With ``counts=False`` the comparison is shown,
    with a verdict of its own, and has no part in the paper's: what is worth knowing, but not what the paper
    claims.
    """

    treatment: str
    baseline: str
    metric: str
    direction: Literal["higher", "lower"] = "higher"
    by: float = 0.0
    counts: bool = True

    def __str__(self) -> str:
        if self.by < 0:
            worse = "lower" if self.direction == "higher" else "higher"
            return (
                f"{self.metric}: {self.treatment} not {worse} than {self.baseline} by more than {-self.by:g}"
            )
        least = f" by {self.by:g}" if self.by else ""
        return f"{self.metric}: {self.treatment} {self.direction} than {self.baseline}{least}"


@dataclass(frozen=True)
class Claim:
    """Something that a paper says will come of training, and what would refute it.

    ``seconds`` is what all seeds take on one quiet core, ``first_seconds`` what is added when the start
    models have to be made, which are on disk then. Step sizes are chosen by the metric of the first
    expectation, in its direction, on ``tuning_seeds``. Seeds are judged from ``judged_from`` on: later ones
    where something was changed after earlier ones had been looked at.
    """

    statement: str
    experiment: Experiment[Any, Any]
    arms: tuple[Arm, ...]
    expected: tuple[Expectation, ...]
    refuted_by: str
    seconds: float
    first_seconds: float = 0.0
    seeds: int = 3
    tuning_seeds: tuple[int, ...] = (0, 1)
    judged_from: int = FIRST_JUDGED_SEED

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise PreferoError(f"two arms of a claim have one name: {', '.join(names)}")
        for one in self.expected:
            for name in (one.treatment, one.baseline):
                if name not in names:
                    raise PreferoError(f"{one} speaks of {name!r}, which is no arm: {', '.join(names)}")
        if not any(one.counts for one in self.expected):
            raise PreferoError(f"nothing is expected that counts: {self.statement}")
        if (
            any(seed >= FIRST_JUDGED_SEED for seed in self.tuning_seeds)
            or self.judged_from < FIRST_JUDGED_SEED
        ):
            raise PreferoError(f"seeds from {FIRST_JUDGED_SEED} on are judged, and cannot be tuned on")


@dataclass(frozen=True)
class Number:
    """A number that a check yields, and where it has to lie, ends included."""

    what: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def holds(self) -> bool:
        return self.low <= self.value <= self.high

    @classmethod
    def near(cls, what: str, value: float, expected: float, within: float = 1e-6) -> Number:
        """A number that has to be ``expected``, give or take ``within``."""
        return cls(what, float(value), expected - within, expected + within)


@dataclass(frozen=True)
class Check:
    """Something that can be shown without a claim about training: an identity, a limit, a mechanism.

    ``run(seed)`` yields numbers and where they have to lie; random cases follow from the seed. Seeds are
    judged as those of a :class:`Claim`.
    """

    statement: str
    run: Callable[[int], Sequence[Number]]
    refuted_by: str
    seconds: float
    first_seconds: float = 0.0
    seeds: int = 3
    judged_from: int = FIRST_JUDGED_SEED


Evidence = Claim | Check


@dataclass(frozen=True)
class Paper:
    """A paper of the survey. ``key`` and ``area`` are filled in from where its module lies.

    ``id`` is its number in the survey, ``adds`` what it adds to what was there before it, in a sentence;
    ``methods`` are keys of ``prefero methods``. ``note`` is for what a reader of the verdict should know.
    """

    id: str
    title: str
    citation: str
    adds: str
    evidence: tuple[Evidence, ...]
    methods: tuple[str, ...] = ()
    note: str = ""
    key: str = ""
    area: str = ""

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.evidence)

    @property
    def first_seconds(self) -> float:
        return sum(one.first_seconds for one in self.evidence)
