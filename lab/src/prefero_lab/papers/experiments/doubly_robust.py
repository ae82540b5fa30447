"""The experiments on being right about one of two things: the reference, or who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero.models.tabular.policy import TabularPolicy
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.bandit import Bandit


@dataclass(frozen=True)
class Made:
    """The truth, whose preferences no reward explains and whose reference drew all pairs; and another world's
    reference and preferences, which are wrong here."""

    truth: Bandit
    wrong: Bandit

    def said(self, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The reference and the preferences that an arm believes in."""
        which = {"right": self.truth, "wrong": self.wrong}
        return which[settings["reference"]].reference, which[settings["preference"]].preference

    def pairs(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Comparisons ``[prompt, pair, 2]`` of the reference's responses, as many for every prompt, and
        whether the first one won."""
        import torch

        from prefero.demo.text import stream

        numbers, truth = stream("doubly robust", "pairs", seed), self.truth
        drawn = torch.multinomial(truth.reference, 2 * count, replacement=True, generator=numbers)
        drawn = drawn.unflatten(1, (count, 2))
        prompt = torch.arange(len(drawn))[:, None]
        wins = truth.preference[prompt, drawn[..., 0], drawn[..., 1]]
        return drawn, torch.rand(wins.shape, generator=numbers, dtype=wins.dtype) < wins


def made(prompts: int, responses: int, seed: int) -> Made:
    import torch

    from prefero.demo.text import stream
    from prefero_lab.worlds.bandit import Bandit

    numbers = stream("doubly robust", "references", seed)
    logits = torch.randn(2, prompts, responses, generator=numbers, dtype=torch.float64)
    games = [Bandit.game(prompts, responses, seed=2 * seed + which).preference for which in range(2)]
    return Made(*(Bandit(each.softmax(-1), game) for each, game in zip(logits, games, strict=True)))


@dataclass(frozen=True)
class Estimates:
    """How often a fixed policy's responses beat the reference's, estimated from ``pairs`` comparisons a
    prompt by the doubly robust mean, with a ``reference`` and a ``preference`` that are right or wrong.

    Measured, one number a prompt: ``error``, how far the estimate is off.
    """

    prompts: int = 32
    responses: int = 8

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        return made(self.prompts, self.responses, seed)

    def _policy(self, made: Made, seed: int) -> Tensor:
        import torch

        from prefero.demo.text import stream

        numbers = stream("doubly robust", "policy", seed)
        return torch.randn(
            made.truth.reference.shape, generator=numbers, dtype=made.truth.reference.dtype
        ).softmax(-1)

    def start(self, made: Made) -> Tensor:
        return made.truth.reference.new_full((self.prompts,), 0.5)

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        import torch

        from prefero.theory.rewards import doubly_robust_values
        from prefero_lab.papers.paper import Trained

        (drawn, won), (reference, preference) = made.pairs(settings["pairs"], seed), made.said(settings)
        rows = torch.cat([drawn, won[..., None].to(drawn)], -1)
        each = zip(self._policy(made, seed), reference, preference, rows, strict=True)
        return Trained(torch.stack([doubly_robust_values(*one).mean() for one in each]))

    def measure(self, made: Made, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        import torch

        from prefero.theory.rewards import total_preference

        each = zip(self._policy(made, seed), made.truth.reference, made.truth.preference, strict=True)
        truth = torch.stack([total_preference(*one) for one in each])
        return {"error": (model - truth).abs().tolist()}


@dataclass(frozen=True)
class Policies:
    """Policies learnt from ``pairs`` comparisons a prompt, those of two different responses. Where the
    objective reads samples, one is drawn for every pair at every step, and rated by the ``preference`` that
    the arm believes in; ``direct`` takes the labels for rightly predicted, so that the preferences alone
    decide.

    Measured, one number a prompt: ``win rate``, the true one against the true reference.
    """

    prompts: int = 8
    responses: int = 8
    pairs: int = 100
    steps: int = 200
    learning_rate: float = 0.1

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Made:
        return made(self.prompts, self.responses, seed)

    def start(self, made: Made) -> TabularPolicy:
        return made.truth.policy()

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[TabularPolicy]:
        import torch

        from prefero.demo.start import one_thread
        from prefero.demo.text import stream
        from prefero.models.tabular.policy import TabularPolicy
        from prefero.objectives import from_config
        from prefero_lab.papers.paper import Trained
        from prefero_lab.worlds.tabular_fitting import WholeBatch, descended

        (drawn, won), (reference, preference) = made.pairs(self.pairs, seed), made.said(settings)
        drawn = torch.where(won[..., None], drawn, drawn.flip(-1))
        prompt = torch.arange(self.prompts).repeat_interleave(self.pairs)
        winner, loser = drawn.flatten(0, 1).T
        told = winner != loser
        prompt, winner, loser = prompt[told], winner[told], loser[told]
        predicted = preference[prompt, winner, loser]
        if settings.get("direct"):
            predicted = torch.ones_like(predicted)
        table = made.truth.table
        rows = []
        for x, won_by, lost_by, rate in zip(
            *(one.tolist() for one in (prompt, winner, loser, predicted)), strict=True
        ):
            texts = table.responses[x]
            row = {"prompt": table.prompts[x], "chosen": texts[won_by], "rejected": texts[lost_by]}
            rates = {"chosen_win_rate": rate, "rejected_win_rate": 1 - rate, "sample_win_rate": 0.5}
            rows.append(row | {"sample": texts[won_by]} | rates)
        batch = WholeBatch(from_config(settings["objective"]), rows, table)
        numbers = stream("doubly robust", "samples", seed)

        def redraw(policy: TabularPolicy) -> None:
            if "sample" not in batch.roles:
                return
            sample = torch.multinomial(policy.probabilities().detach()[prompt], 1, generator=numbers)[:, 0]
            at = batch.roles.index("sample")
            batch.row.views[""].response[:, at] = sample
            both = preference[prompt, sample, winner] + preference[prompt, sample, loser]
            batch.columns["win_rate"][:, at] = both / 2

        with one_thread():
            policy = descended(
                batch,
                self.start(made),
                self.steps,
                self.learning_rate,
                redraw=redraw,
                reference=TabularPolicy.of(table, reference),
            )
        return Trained(policy)

    def measure(self, made: Made, model: TabularPolicy, seed: int) -> Mapping[str, Sequence[float]]:
        truth = made.truth
        rates = truth.win_rates(truth.reference)
        return {"win rate": (model.probabilities().detach() * rates).sum(-1).tolist()}
