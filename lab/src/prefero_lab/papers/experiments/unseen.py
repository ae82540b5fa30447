"""The experiment on a network with few responses, all of which are seen: where probability goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.unseen import Unseen

OFF_POLICY = (0.03, 0.10, 0.80)
"""Pairs of others: hardly anything that the policy says is in them. About how probable the chosen, the
rejected, and the unseen responses are."""

ON_POLICY = (0.40, 0.40, 0.10)
"""Pairs of its own samples."""


@dataclass(frozen=True)
class UnseenExperiment:
    """An :class:`~prefero_lab.papers.paper.Experiment` on the world :mod:`prefero_lab.worlds.unseen`.

    Arms are settings of :func:`prefero_lab.papers.training.trained`; with ``"from"``, (chosen, rejected,
    unseen), an arm starts elsewhere than at ``start``, where the claim is about that. By default all pairs
    are one optimizer step, of plain gradient descent with a constant step size.

    Measured, one number a prompt: the probabilities ``chosen``, ``rejected`` and ``unseen``;
    ``chosen_log_ratio`` and ``rejected_log_ratio`` to where the arm started, and their difference, the
    ``margin``; ``kl`` to that start; how many steps it takes ``until rejected halves`` and ``until chosen
    doubles`` (or comes half way to 1, if that is nearer), one step more than there were if it never does; and
    by how many steps the chosen is later, ``lag``.
    ``order`` is one number in all: Kendall's τ between the margins and how much better the chosen are.
    """

    start_at: tuple[float, float, float] = OFF_POLICY
    prompts: int = 4
    unseen: int = 2
    hidden: int = 64
    steps: int = 300

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Unseen:
        from prefero_lab.worlds.unseen import Unseen

        return Unseen.drawn(seed, prompts=self.prompts, unseen=self.unseen, hidden=self.hidden)

    def start(self, made: Unseen) -> Tensor:
        """The path of a policy: its probabilities at the start and after every step."""
        return made.probabilities(*self.start_at)[None]

    def train(self, made: Unseen, settings: Mapping[str, Any], seed: int) -> Trained[Tensor]:
        import torch
        from transformers import TrainerCallback

        from prefero_lab.papers.paper import Trained
        from prefero_lab.papers.training import trained

        policy = made.policy(made.probabilities(*settings.get("from", self.start_at)))
        path = [policy.probabilities().detach()]

        class Follow(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
                path.append(given["model"].probabilities().detach())

        own = {name: value for name, value in settings.items() if name != "from"}
        budget = {
            "max_steps": self.steps,
            "examples_per_step": self.prompts,
            "optim": "sgd",
            "learning_rate": 0.05,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "max_grad_norm": 0.0,
            "callbacks": [Follow()],
        }
        run = trained(policy, made.rows(), own, seed=seed, **budget)
        return Trained(torch.stack(path), run.curves)

    def measure(self, made: Unseen, model: Tensor, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.theory.optima import kl

        path = made.mass(model)
        first, last = ({name: one[at] for name, one in path.items()} for at in (0, -1))
        ratios = {side: (last[side] / first[side]).log() for side in ("chosen", "rejected")}
        margin = ratios["chosen"] - ratios["rejected"]
        doubled = (2 * first["chosen"]).minimum((1 + first["chosen"]) / 2)
        until = {
            "until rejected halves": reached(path["rejected"] <= first["rejected"] / 2),
            "until chosen doubles": reached(path["chosen"] >= doubled),
        }
        found = {
            **last,
            **{f"{side}_log_ratio": one for side, one in ratios.items()},
            "margin": margin,
            "kl": kl(model[-1], model[0]),
            **until,
            "lag": until["until chosen doubles"] - until["until rejected halves"],
        }
        numbers = {name: one.tolist() for name, one in found.items()}
        return {**numbers, "order": [agreement(margin, made.gaps)]}


def agreement(ours: Tensor, theirs: Tensor) -> float:
    """Kendall's τ of two orders: the share of pairs that they order alike, less that of those they do not."""
    signs = [(one[:, None] - one).sign() for one in (ours, theirs)]
    return float((signs[0] * signs[1]).sum()) / (len(ours) * (len(ours) - 1))


def reached(there: Tensor) -> Tensor:
    """The first step at which a condition holds, for each prompt; their number where it never does."""
    import torch

    return torch.where(there.any(0), there.int().argmax(0), len(there)).double()
