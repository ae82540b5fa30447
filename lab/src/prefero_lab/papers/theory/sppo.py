"""SPPO: self-play whose average wins against everybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper, Trained

if TYPE_CHECKING:
    from torch import Tensor

    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class Cycles:
    """Games of three responses that beat each other in a circle. Models are probabilities.

    Measured, one number a game: ``worst case``, the win rate against the response that is best against the
    policy: ½ for the von Neumann winner alone.
    """

    games: int = 6
    rounds: int = 150

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Bandit:
        from prefero_lab.worlds.bandit import Bandit

        return Bandit.cycle(self.games, seed=seed)

    def start(self, made: Bandit) -> Tensor:
        return made.reference

    def train(self, made: Bandit, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        from prefero.demo.start import one_thread
        from prefero.objectives import from_config
        from prefero_lab.worlds.self_play import Game
        from prefero_lab.worlds.tabular_fitting import fitted

        objective, start = from_config({**settings["objective"], "weight": "given"}), made.policy()
        with one_thread():
            if "policy" not in settings:
                alone = fitted(objective, made.expected_pairs(), start, reference=start)
                return Trained(alone.probabilities().detach())
            path = Game(made, objective).rounds(self.rounds)
        return Trained(path[-1] if settings["policy"] == "last" else path.mean(0))

    def measure(self, made: Bandit, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.theory.games import worst_case_win_rate

        pairs = zip(made.preference, model, strict=True)
        return {"worst case": [float(worst_case_win_rate(wins, policy)) for wins, policy in pairs]}


SPPO = {"method": "sppo", "beta": 5.0}

PAPER = Paper(
    id="p165",
    title="Self-Play Preference Optimization for Language Model Alignment",
    citation="Wu et al., 2024, arXiv 2405.00675",
    adds="Multiplicative weights against oneself as a regression of each response's log-ratio on its win "
    "rate: no reward has to explain the preferences.",
    methods=("sppo",),
    evidence=(
        Claim(
            statement="Where preferences go in a circle, the average of SPPO's rounds comes to lose to no "
            "response; its last round circles, and a policy fitted by DPO is easily beaten.",
            experiment=Cycles(),
            arms=(
                START,
                Arm("sppo, average", {"objective": SPPO, "policy": "average"}),
                Arm("sppo, last", {"objective": SPPO, "policy": "last"}),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.05}}),
            ),
            expected=(
                Expectation("sppo, average", "start", "worst case", by=0.03),
                Expectation("sppo, average", "sppo, last", "worst case", by=0.03),
                Expectation("sppo, average", "dpo", "worst case", by=0.05),
                Expectation("dpo", "start", "worst case", counts=False),
            ),
            refuted_by="an average of the rounds that is beaten as often as the last round, or as a policy "
            "fitted to the same preferences",
            seconds=60,
        ),
    ),
)
