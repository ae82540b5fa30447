"""RLHF against DPO: which one is better depends on whose class is too small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper, Trained

if TYPE_CHECKING:
    from torch import Tensor

    from prefero.theory.misspecified import LogLinearBandit


@dataclass(frozen=True)
class Classes:
    """One seed's bandits, who pairs are drawn from, and the features of a class that is too small."""

    reward: Tensor
    reference: Tensor
    sampling: Tensor
    features: Tensor


@dataclass(frozen=True)
class TooSmall:
    """Bandits of six responses with unlimited comparisons. ``small`` names the classes that have two features
    alone: ``policy``, ``reward`` or ``both``. Models are policies' probabilities.

    Arms are solved exactly, or by the trainer. Measured, one number a bandit: ``value``, the true
    E[r] − β KL(π ‖ π_ref).
    """

    bandits: int = 16
    responses: int = 6
    beta: float = 0.5

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Classes:
        import torch

        from prefero.demo.text import stream

        numbers = stream("rlhf and dpo", seed)
        shape = (self.bandits, self.responses)
        reward, reference, sampling = torch.randn(3, *shape, generator=numbers, dtype=torch.float64)
        features = torch.randn(*shape, 2, generator=numbers, dtype=torch.float64)
        return Classes(reward, reference.softmax(-1), sampling.softmax(-1), features)

    def start(self, made: Classes) -> Tensor:
        return made.reference

    def train(self, made: Classes, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        import torch

        from prefero.demo.start import one_thread

        if settings["method"] == "trainer":
            return Trained(self._through_the_trainer(made, seed))
        with one_thread():
            return Trained(torch.stack([self._solved(made, one, settings) for one in range(self.bandits)]))

    def _solved(self, made: Classes, one: int, settings: Mapping[str, Any]) -> Tensor:
        import torch

        every, sampling = torch.eye(self.responses, dtype=torch.float64), made.sampling[one]
        small, features = settings["small"], made.features[one]

        def bandit(of: Tensor, reward: Tensor) -> LogLinearBandit:
            from prefero.theory.misspecified import LogLinearBandit

            return LogLinearBandit(of, reward, made.reference[one], self.beta)

        policies = bandit(every if small == "reward" else features, made.reward[one])
        if settings["method"] == "dpo":
            theta = policies.dpo(sampling)
        elif settings["method"] == "online":
            theta = policies.online_dpo()
        else:
            rewards = bandit(every if small == "policy" else features, made.reward[one])
            learnt = rewards.features @ rewards.reward_weights(sampling)
            theta = bandit(policies.features, learnt).ascent(
                torch.zeros(policies.features.shape[1]).to(learnt)
            )
        return policies.policy(theta)

    def _through_the_trainer(self, made: Classes, seed: int) -> Tensor:
        """DPO with small policies; every bandit is a prompt, and has features of its own."""
        import torch

        from prefero_lab.papers.training import trained
        from prefero_lab.worlds.bandit import Bandit

        bandit = Bandit.of_reward(made.reward, made.reference)
        own = torch.eye(self.bandits, dtype=torch.float64)[:, None, :, None] * made.features[:, :, None]
        rows = bandit.expected_pairs(made.sampling)
        policy = trained(
            bandit.policy(own.flatten(2)),
            rows,
            {"objective": {"method": "dpo", "beta": self.beta, "weight": "given"}},
            seed=seed,
            learning_rate=0.1,
            max_steps=250,
            examples_per_step=len(rows),
            lr_scheduler_type="cosine",
            warmup_steps=0,
            max_grad_norm=0.0,
        ).model
        return policy.probabilities().detach()  # type: ignore[operator]

    def measure(self, made: Classes, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero_lab.worlds.bandit import Bandit

        return {"value": Bandit.of_reward(made.reward, made.reference).values(model, self.beta).tolist()}


@dataclass(frozen=True)
class Sparse:
    """Rewards of two features out of fifty, and so many sampled comparisons of random responses.

    ``lasso`` fits a reward that is told to be sparse, whose best policy is the answer; ``dpo`` a policy of
    the same features, with weight decay. Measured, one number a world: ``error``, 1 less the correlation of
    the true reward with the learnt one (β log π/π_ref, of a policy) over responses.
    """

    worlds: int = 12
    features: int = 50
    relevant: int = 2

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Tensor:
        """The true weights."""
        import torch

        weights = torch.zeros(self.worlds, self.features, dtype=torch.float64)
        weights[:, : self.relevant] = 1.0
        return weights

    def start(self, made: Tensor) -> Tensor:
        return made

    def train(self, made: Tensor, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        import torch

        from prefero.demo.start import one_thread
        from prefero.demo.text import stream
        from prefero.theory.rewards import penalised_weights

        found = []
        for number, weights in enumerate(made):
            numbers = stream("sparse rewards", seed, number)
            shape = (settings["pairs"], self.features)
            # differences of two responses with standard normal features
            some = 2**0.5 * torch.randn(shape, generator=numbers, dtype=torch.float64)
            wins = torch.rand(len(some), generator=numbers, dtype=torch.float64) < torch.sigmoid(
                some @ weights
            )
            rows = torch.where(wins[:, None], some, -some)
            with one_thread():
                found.append(penalised_weights(rows, **{settings["penalty"]: settings["strength"]}))
        return Trained(torch.stack(found))

    def measure(self, made: Tensor, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        import torch

        # of responses whose features are independent with the same variance, rewards correlate as weights do
        return {"error": (1 - torch.cosine_similarity(made, model, dim=-1)).tolist()}


STRENGTHS = {"strength": (0.003, 0.01, 0.03, 0.1, 0.3)}


def sparse_arms(pairs: int, lasso: float, ridge: float) -> tuple[Arm, Arm]:
    return (
        Arm(f"rlhf, {pairs} pairs", {"penalty": "lasso", "strength": lasso, "pairs": pairs}, STRENGTHS),
        Arm(f"dpo, {pairs} pairs", {"penalty": "ridge", "strength": ridge, "pairs": pairs}, STRENGTHS),
    )


PAPER = Paper(
    id="p073",
    title="Understanding the Performance Gap in Preference Learning: A Dichotomy of RLHF and DPO",
    citation="Shi et al., 2025, arXiv 2505.19770",
    adds="What RLHF, DPO and online DPO come to when the class of rewards, that of policies, or both lack "
    "the truth, and how many comparisons they need when the reward is sparse.",
    methods=("dpo",),
    evidence=(
        Claim(
            statement="With unlimited comparisons RLHF is better where policies are the class that is too "
            "small, DPO where rewards are; where both are alike and too small, they are the same, and online "
            "DPO is better.",
            experiment=TooSmall(),
            arms=tuple(
                Arm(f"{method}, small {small}", {"method": method, "small": small})
                for small, methods in {
                    "policy": ("rlhf", "dpo", "trainer"),
                    "reward": ("rlhf", "dpo"),
                    "both": ("rlhf", "dpo", "online"),
                }.items()
                for method in methods
            ),
            expected=(
                Expectation("rlhf, small policy", "dpo, small policy", "value", by=0.02),
                Expectation("dpo, small reward", "rlhf, small reward", "value", by=0.02),
                Expectation("rlhf, small both", "dpo, small both", "value", by=-1e-6),
                Expectation("dpo, small both", "rlhf, small both", "value", by=-1e-6),
                Expectation("online, small both", "dpo, small both", "value", by=0.02),
                Expectation("trainer, small policy", "dpo, small policy", "value", by=-1e-3),
                Expectation("dpo, small policy", "trainer, small policy", "value", by=-1e-3),
            ),
            refuted_by="a true regularised value that is no higher for the method whose class is right, or "
            "that differs between RLHF and DPO where their classes describe each other",
            seconds=60,
        ),
        Claim(
            statement="From few comparisons a reward model that is told of sparsity comes closer to a sparse "
            "reward than DPO, and the gap closes with their number.",
            experiment=Sparse(),
            arms=(*sparse_arms(100, 0.1, 0.3), *sparse_arms(5000, 0.03, 0.003)),
            expected=(
                Expectation("rlhf, 100 pairs", "dpo, 100 pairs", "error", "lower", by=0.05),
                Expectation("dpo, 5000 pairs", "dpo, 100 pairs", "error", "lower", by=0.05),
                Expectation("dpo, 5000 pairs", "rlhf, 5000 pairs", "error", "lower", by=-0.05),
            ),
            refuted_by="a sparse reward model that a hundred comparisons bring no closer than DPO, both with "
            "penalties chosen on other seeds; or a gap that five thousand leave",
            seconds=20,
        ),
    ),
)
