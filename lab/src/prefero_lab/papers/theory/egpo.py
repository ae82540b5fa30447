"""EGPO: the last policy of self-play is the equilibrium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper, Trained

if TYPE_CHECKING:
    from prefero.models.tabular.policy import TabularPolicy
    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class RandomGames:
    """Games of ten responses with uniform preferences, regularised towards a uniform reference by β.

    An arm takes ``gradients`` gradients of the online IPO loss over all pairs, each of mirror descent's step
    size. Measured, one number a game: ``gap``, the duality gap of the regularised game.
    """

    games: int = 30
    responses: int = 10
    beta: float = 0.01
    step: float = 0.01
    gradients: int = 1000

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Bandit:
        from prefero_lab.worlds.bandit import Bandit

        return Bandit.game(self.games, self.responses, seed=seed)

    def start(self, made: Bandit) -> TabularPolicy:
        return made.policy()

    def train(self, made: Bandit, settings: Mapping[str, Any], seed: int) -> Trained[TabularPolicy]:
        from prefero.demo.start import one_thread
        from prefero.objectives import from_config
        from prefero_lab.worlds.self_play import Game, itself, towards_reference

        game = Game(made, from_config({"method": "online_ipo", "beta": self.beta}))
        # the loss is a mean over games too, and two responses that meet are different ones
        rate = self.step * self.games * (self.responses - 1) / 4
        with one_thread():
            if settings["update"] == "extragradient":
                return Trained(game.extragradient(self.gradients // 2, rate))
            meets = towards_reference(self.step) if settings["update"] == "nash-md" else itself
            return Trained(game.descent(self.gradients, rate, meets))

    def measure(self, made: Bandit, model: TabularPolicy, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.theory.games import duality_gap

        policies = model.probabilities().detach()
        each = zip(made.preference, policies, made.reference, strict=True)
        gaps = [duality_gap(wins, policy, reference, self.beta) for wins, policy, reference in each]
        return {"gap": [float(gap) for gap in gaps]}


def converges(seed: int) -> Sequence[Number]:
    """The largest gap of any game after 500 and after 1000 steps."""
    experiment = RandomGames()
    made = experiment.make(seed)
    largest = []
    for gradients in (1000, 2000):
        longer = replace(experiment, gradients=gradients)
        policy = longer.train(made, {"update": "extragradient"}, seed).model
        largest.append(max(experiment.measure(made, policy, seed)["gap"]))
    return [
        Number("largest gap after 500 steps", largest[0], high=1e-4),
        Number("the same after 1000 steps, over that", largest[1] / largest[0], high=1e-3),
    ]


PAPER = Paper(
    id="p120",
    title="Extragradient Preference Optimization (EGPO): Beyond Last-Iterate Convergence for Nash Learning "
    "from Human Feedback",
    citation="Zhou et al., 2025, arXiv 2503.08942",
    adds="Two gradients of an online IPO loss a step, the second one against the policy that the first one "
    "makes: the last policy converges to the regularised equilibrium at a linear rate.",
    methods=("online_ipo",),
    evidence=(
        Claim(
            statement="On random games with little regularisation the last policy of EGPO comes to the "
            "equilibrium; with as many gradients, mirror descent and Nash-MD do not on the harder ones.",
            experiment=RandomGames(),
            arms=(
                START,
                Arm("egpo", {"update": "extragradient"}),
                Arm("mirror descent", {"update": "plain"}),
                Arm("nash-md", {"update": "nash-md"}),
            ),
            expected=(
                Expectation("egpo", "start", "gap", "lower", by=0.05),
                Expectation("egpo", "mirror descent", "gap", "lower", by=1e-3),
                Expectation("egpo", "nash-md", "gap", "lower", by=1e-3),
            ),
            refuted_by="a duality gap, averaged over games, that is as large as that of single gradients "
            "against the policy itself or against Nash-MD's mixture",
            seconds=50,
            judged_from=200,
        ),
        Check(
            statement="In every game the gap goes to 0, at a linear rate.",
            run=converges,
            refuted_by="a game whose gap is above 1e-4 after 500 steps, or not a thousandth of that after "
            "500 more",
            seconds=40,
        ),
    ),
)
