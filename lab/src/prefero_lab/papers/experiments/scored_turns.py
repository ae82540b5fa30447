"""The experiment on talks whose turns have scores of their own, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import nn

    from prefero.demo.start import StartModel
    from prefero.feedback.segment_scores import Noise
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bargaining import Session

GOOD, SMALL_TALK, BAD = 3.0, 2.0, 1.0
"""The scores of a decisive turn that is right, of one that decides nothing, and of one that is wrong."""
LOWEST, HIGHEST = 0.0, 4.0
"""Between which annotators score."""
SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Made:
    """One seed's start model, pairs with right scores, the same with wrong ones, and held-out ``rows``."""

    start: StartModel
    right: list[dict[str, Any]]
    wrong: list[dict[str, Any]]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Both:
    """Models of an arm, trained on right scores and on noisy ones."""

    right: nn.Module
    wrong: nn.Module


@dataclass(frozen=True)
class ScoredTurnsExperiment:
    """An :class:`~prefero_lab.papers.paper.Experiment` on :mod:`prefero_lab.worlds.bargaining`: two sessions
    of the start model with one seller, the one with more right turns chosen (equal ones are left out), and
    every turn of the buyer a segment with a score from 0 to 4: 3 for right, 1 for wrong, 2 for small talk.

    Every arm is trained twice, with the settings of :func:`prefero_lab.papers.training.trained`: on these
    scores, and on ones with ``noise`` of size ``epsilon``
    (:func:`~prefero.feedback.segment_scores.noisy_scores`). Which session is chosen is the same.

    Measured on pairs of held-out sellers, one number a pair: ``accuracy`` and ``noisy_accuracy``, whether
    log π/π_start of the whole text is higher for the better session after training on right and on wrong
    scores; ``fall``, how much lower the second is than the first; ``margin`` and ``noisy_margin``, the
    difference in nats. And of ``talks`` new sessions, one number each: ``success`` and ``noisy_success``.
    """

    noise: Noise = "uniform"
    epsilon: float = 2.0
    pairs: int = 400
    held_out: int = 900
    epochs: float = 2.0
    examples_per_step: int = 32
    talks: int = 300

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        from prefero.demo.start import one_thread
        from prefero.demo.text import stream
        from prefero.feedback.segment_scores import noisy_scores
        from prefero_lab.worlds.bargaining import BARGAINING

        numbers = stream("bargaining", "scores", seed)

        def careless(scores: Sequence[float]) -> list[float]:
            return noisy_scores(
                scores, noise=self.noise, epsilon=self.epsilon, generator=numbers, low=LOWEST, high=HIGHEST
            )

        with one_thread():
            start = BARGAINING.start_model(seed=seed)
            pairs = self._pairs(start, self.pairs, seed, held_out=False)
            others = self._pairs(start, self.held_out, seed, held_out=True)
        right = [scored_row(*pair, list) for pair in pairs]
        wrong = [scored_row(*pair, careless) for pair in pairs]
        return Made(start, right, wrong, [scored_row(*pair, list) for pair in others])

    def _pairs(
        self, start: StartModel, count: int, seed: int, *, held_out: bool
    ) -> list[tuple[Session, Session]]:
        import random

        from prefero.demo.text import stream
        from prefero_lab.worlds.bargaining import Session, play, prompts

        rng = random.Random(f"bargaining pairs {held_out} {seed}")
        begun = [Session(one) for one in rng.choices(prompts(held_out=held_out), k=count) for _ in range(2)]
        played = play(start.model, start.tokenizer, begun, stream("bargaining", "pairs", held_out, seed))
        both = (
            sorted(played[i : i + 2], key=lambda one: sum(one.right), reverse=True)
            for i in range(0, 2 * count, 2)
        )
        return [(better, worse) for better, worse in both if sum(better.right) > sum(worse.right)]

    def start(self, made: Made) -> Both:
        return Both(made.start.model, made.start.model)

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Both]:
        from prefero_lab.papers.paper import Trained
        from prefero_lab.papers.training import trained

        budget = {"num_train_epochs": self.epochs, "examples_per_step": self.examples_per_step}
        right, wrong = (
            trained(str(made.start.folder), rows, settings, seed=seed, **budget)
            for rows in (made.right, made.wrong)
        )
        return Trained(Both(right.model, wrong.model), wrong.curves)

    def measure(self, made: Made, model: Both, seed: int) -> Mapping[str, Sequence[float]]:
        import random

        from prefero.demo.start import one_thread
        from prefero.demo.text import stream
        from prefero_lab.papers.text import log_ratios
        from prefero_lab.worlds.bargaining import Session, play, prompts

        rng = random.Random(f"bargaining talks {seed}")
        asked = [Session(prompt) for prompt in rng.choices(prompts(held_out=True), k=self.talks)]
        found: dict[str, list[float]] = {}
        with one_thread():
            for name, policy in (("", model.right), ("noisy_", model.wrong)):
                ratios = log_ratios(cast(Any, made), policy, len(made.rows))
                both = zip(*(ratios[f"{side}_log_ratio"] for side in SIDES), strict=True)
                found[f"{name}margin"] = [better - worse for better, worse in both]
                found[f"{name}accuracy"] = [float(one > 0) for one in found[f"{name}margin"]]
                played = play(policy, made.start.tokenizer, asked, stream("bargaining", "talks", seed))
                found[f"{name}success"] = [float(one.success) for one in played]
        falls = zip(found["accuracy"], found["noisy_accuracy"], strict=True)
        return {**found, "fall": [right - wrong for right, wrong in falls]}


def scores(session: Session) -> list[float]:
    """Score of each turn of the buyer."""
    from prefero_lab.worlds.bargaining import DECISIVE

    talk = [SMALL_TALK] * (len(session.said) - DECISIVE)
    return [GOOD if right else BAD for right in session.right] + talk


def scored_row(better: Session, worse: Session, annotator: Any) -> dict[str, Any]:
    """A pair whose turns are segments; what ``annotator`` makes of the scores is said of them."""
    from prefero_lab.worlds.bargaining import KINDS, segment_row

    row = segment_row(better, worse, range(len(KINDS)))
    for side, session in zip(SIDES, (better, worse), strict=True):
        given = zip(row[f"{side}_spans"], annotator(scores(session)), strict=True)
        row[f"{side}_spans"] = [{**span, "score": score} for span, score in given]
    return row
