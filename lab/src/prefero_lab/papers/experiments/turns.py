"""The experiment on talks of several turns with a scripted partner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

    from prefero.demo.start import StartModel
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bargaining import Session

Data = Literal["turn", "segment", "session", "trajectories"]
"""What arms learn from. The first three are the same pairs, of a failed session and a better way on from its
first wrong turn, with other turns in the column ``segment``: that turn, from there to the deal, or all of
them. The last are an expert's sessions against failed ones, whose turns are the column ``step``."""


@dataclass(frozen=True)
class Made:
    """One seed's start model, and its pairs: better session, worse session, first wrong turn."""

    start: StartModel
    repaired: list[tuple[Session, Session, int]]
    expert: list[tuple[Session, Session, int]]


@dataclass(frozen=True)
class TurnsExperiment:
    """An :class:`~prefero_lab.papers.paper.Experiment` on :mod:`prefero_lab.worlds.bargaining`; a seed has a
    start model of its own.

    The start model plays ``sessions`` with the seller, and what fails is paired. Arms are settings of
    :func:`prefero_lab.papers.training.trained` and ``data``. ``noise`` is how often a turn of an expert's
    session or of a failed one beside it is exchanged for any other, from the turn ``noise_from`` (0 the
    first) on: what ``trajectories`` say late is then of little worth.

    Measured on ``talks`` new sessions at temperature 1 under the same noise, one number a session:
    ``success``, the ``score`` of a judge of talks, whether the turns ``greet``, ``praise``, ``offer`` and
    ``answer`` were right as things stood.
    """

    sessions: int = 400
    rows: int | None = None
    noise: float = 0.0
    noise_from: int = 2
    epochs: float = 2.0
    examples_per_step: int = 32
    talks: int = 1000

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        import random

        from prefero.demo.start import one_thread
        from prefero_lab.worlds.bargaining import BARGAINING, acted, noisy, repaired

        with one_thread():
            start = BARGAINING.start_model(seed=seed)
            found = repaired(start, self.sessions, seed)
        rng = random.Random(f"bargaining trajectories {seed}")
        expert = [
            (
                noisy(acted(worse.prompt, rng, 1.0), self.noise_from, self.noise, rng),
                noisy(worse, self.noise_from, self.noise, rng),
                turn,
            )
            for _, worse, turn in found
        ]
        return Made(start, found[: self.rows], expert[: self.rows])

    def start(self, made: Made) -> nn.Module:
        return made.start.model

    def data(self, made: Made, kind: Data) -> list[dict[str, Any]]:
        """The rows that an arm learns from."""
        from prefero_lab.worlds.bargaining import DECISIVE, KINDS, segment_row, step_row

        if kind == "trajectories":
            return [step_row(better, worse) for better, worse, _ in made.expert]
        ends = {"turn": lambda turn: turn + 1, "segment": lambda _: DECISIVE, "session": lambda _: len(KINDS)}
        return [
            segment_row(better, worse, range(0 if kind == "session" else turn, ends[kind](turn)))
            for better, worse, turn in made.repaired
        ]

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        from prefero_lab.papers.training import trained

        own = {name: value for name, value in settings.items() if name != "data"}
        budget = {"num_train_epochs": self.epochs, "examples_per_step": self.examples_per_step}
        rows = self.data(made, settings["data"])
        return trained(str(made.start.folder), rows, own, seed=seed, **budget)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        import random

        from prefero.demo.start import one_thread
        from prefero.demo.text import stream
        from prefero_lab.worlds.bargaining import KINDS, Session, play, prompts

        rng = random.Random(f"bargaining talks {seed}")
        asked = [Session(prompt) for prompt in rng.choices(prompts(held_out=True), k=self.talks)]
        with one_thread():
            played = play(model, made.start.tokenizer, asked, stream("bargaining", "talks", seed))
        return {
            "success": [float(one.success) for one in played],
            "score": [one.score for one in played],
            **{name: [float(one.right[turn]) for one in played] for turn, name in enumerate(KINDS[:4])},
        }
