"""The experiment on log-linear preferences: a taste is a direction that pairs with wrong labels, or of
several groups, hide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from prefero.data.examples import Examples
    from prefero.models.tabular.policy import TabularPolicy
    from prefero_lab.papers.paper import Trained
    from prefero_lab.worlds.log_linear import LogLinear

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Made:
    """One seed's world and its labelled pairs, as rows and read."""

    world: LogLinear
    rows: list[dict[str, Any]]
    examples: Examples


@dataclass(frozen=True)
class Fit:
    """A policy, and what it was trained by: ``objective`` is None for the start."""

    policy: TabularPolicy
    reference: TabularPolicy
    objective: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class LogLinearExperiment:
    """An :class:`~prefero_lab.papers.paper.Experiment` on :mod:`prefero_lab.worlds.log_linear`.

    ``norms`` are the tastes', and ``shares`` the groups' shares of the ``pairs``. ``flips`` of the labels are
    wrong, more of those of close pairs if ``near`` is above 0 (:class:`~prefero_lab.worlds.noisy.Flips`).

    An arm has an ``objective`` (``beta`` is the experiment's, if it names none) and settings of
    :func:`prefero_lab.papers.training.trained`; with a ``guide``, another objective, a first run by that one
    gives the reference of a second run, which starts again. Training takes ``steps`` of ``examples_per_step``
    through the trainer. Without ``examples_per_step``, of the arm or of all, these are steps of Adam on all
    pairs at once, or on the arm's first ``pairs``; without ``steps`` their loss is brought to its minimum.

    Measured on held-out prompts, with the first group's gold reward r and the policy's, β log π/π_ref:
    ``accuracy``, the share of pairs of responses in the right order, ``gold_reward``, E[r], and
    ``sub_optimality``, how much less E[r] − β KL is than the best policy's. One number in all:
    ``parameter_error`` ‖βθ − θ*‖, ``cosine`` and ``norm``, ‖βθ‖/‖θ*‖; ``worst_loss`` and ``loss_gap``, the
    largest expected DPO loss of several groups and how far it is above the smallest, and ``mean_loss``, their
    mean by shares.

    Measured on training pairs: ``chosen_log_ratio``, log π/π_ref; ``margin_clean`` and ``margin_flipped``,
    the policy's reward margins; ``flipped_fitted``, the share of wrong labels it agrees with; and
    ``flipped_weight``, the mean weight of wrong labels in the objective's gradient, of that of all pairs: 1
    is no distinction.
    """

    norms: tuple[float, ...] = (1.5,)
    shares: tuple[float, ...] = (1.0,)
    features: int = 4
    prompts: int = 512
    held_out: int = 256
    responses: int = 4
    pairs: int = 1000
    flips: float = 0.0
    near: float = 0.0
    beta: float = 0.1
    steps: int | None = None
    examples_per_step: int | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    @property
    def counts(self) -> list[int]:
        """Training pairs of each group."""
        return [round(share * self.pairs) for share in self.shares]

    def make(self, seed: int) -> Made:
        from prefero.data.formats import load_examples
        from prefero_lab.worlds.log_linear import LogLinear
        from prefero_lab.worlds.noisy import Flips

        world = LogLinear.drawn(
            self.norms,
            features=self.features,
            training=self.prompts,
            held_out=self.held_out,
            responses=self.responses,
            seed=seed,
        )
        rows = Flips(self.flips, self.near)(world, world.pairs(self.counts, seed), seed)
        return Made(world, rows, load_examples(rows))

    def start(self, made: Made) -> Fit:
        return Fit(made.world.policy(), made.world.policy())

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Fit]:
        from prefero_lab.papers.paper import Trained

        own = {**settings, "objective": {"beta": self.beta, **settings["objective"]}}
        guide, start = own.pop("guide", None), made.world.policy()
        reference = start
        if guide is not None:
            first = {name: value for name, value in own.items() if name != "max_steps"}
            reference = self._found(made, {**first, "objective": guide}, seed, start)
        return Trained(Fit(self._found(made, own, seed, reference), reference, own["objective"]))

    def _found(
        self, made: Made, settings: Mapping[str, Any], seed: int, reference: TabularPolicy
    ) -> TabularPolicy:
        """A policy that started as the world's, against this reference."""
        from prefero.demo.start import one_thread
        from prefero.objectives import from_config
        from prefero_lab.worlds.tabular_fitting import WholeBatch, descended, minimised

        if settings.get("examples_per_step", self.examples_per_step) is not None:
            return self._trained(made, settings, seed, reference)
        start, objective = made.world.policy(), from_config(settings["objective"])
        with one_thread():
            batch = WholeBatch(objective, made.examples[: settings.get("pairs")], start.table)
            if self.steps is None:
                return minimised(batch, start, reference=reference)
            steps = settings.get("max_steps", self.steps)
            return descended(batch, start, steps, settings["learning_rate"], reference=reference)

    def _trained(
        self, made: Made, settings: Mapping[str, Any], seed: int, reference: TabularPolicy
    ) -> TabularPolicy:
        from tempfile import TemporaryDirectory

        from prefero.demo.start import quiet
        from prefero_lab.papers.training import trained

        budget = {
            "max_steps": self.steps,
            "examples_per_step": self.examples_per_step,
            "warmup_steps": 0,
            "max_grad_norm": 0.0,
        }
        with TemporaryDirectory(prefix="prefero-") as folder:
            with quiet():
                reference.save_pretrained(folder)
            own = {"reference": folder, **settings}
            found = trained(made.world.policy(), made.examples, own, seed=seed, **budget)
        policy: Any = found.model
        return policy

    def measure(self, made: Made, model: Fit, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread

        with one_thread():
            return {
                **self._on_held_out(made, model.policy),
                **self._of_parameters(made, model.policy),
                **self._of_groups(made, model.policy),
                **self._of_labels(made, model),
            }

    def _on_held_out(self, made: Made, policy: TabularPolicy) -> dict[str, list[float]]:
        world = made.world
        bandit, found = world.held_out(), policy.probabilities().detach()[world.training :]
        gold = bandit.reward
        assert gold is not None
        ours, theirs = (one[:, :, None] - one[:, None, :] for one in (found.log(), gold))
        right = (1 + (ours * theirs).sign()) / 2 * (theirs != 0)
        lost = bandit.values(bandit.optimum(self.beta), self.beta) - bandit.values(found, self.beta)
        return {
            "accuracy": (right.sum((1, 2)) / (theirs != 0).sum((1, 2))).tolist(),
            "gold_reward": (found * gold).sum(1).tolist(),
            "sub_optimality": lost.tolist(),
        }

    def _of_parameters(self, made: Made, policy: TabularPolicy) -> dict[str, list[float]]:
        import torch

        taste, found = made.world.tastes[0], self.beta * policy.theta.detach()
        return {
            "parameter_error": [float((found - taste).norm())],
            "cosine": [float(torch.cosine_similarity(found, taste, dim=0))],
            "norm": [float(found.norm() / taste.norm())],
        }

    def _of_groups(self, made: Made, policy: TabularPolicy) -> dict[str, list[float]]:
        """Nothing where there is but one."""
        from prefero.objectives import from_config
        from prefero_lab.worlds.tabular_fitting import WholeBatch

        if len(self.norms) < 2:
            return {}
        world = made.world
        objective = from_config({"method": "dpo", "beta": self.beta, "weight": "given"})
        losses = []
        for group in range(len(self.norms)):
            rows = world.expected_held_out(group)
            loss = WholeBatch(objective, rows, policy.table).loss(policy, reference=world.policy())
            losses.append(loss.item())
        mean = sum(share * loss for share, loss in zip(self.shares, losses, strict=True))
        return {
            "worst_loss": [max(losses)],
            "loss_gap": [max(losses) - min(losses)],
            "mean_loss": [mean],
        }

    def _of_labels(self, made: Made, model: Fit) -> dict[str, list[float]]:
        """Nothing where no label is wrong; and no weights of the start, or of objectives that draw noise."""
        import torch

        flipped = torch.tensor([row["flipped"] for row in made.rows])
        if not flipped.any() or flipped.all():
            return {}
        chosen, rejected = log_ratios(model.policy, made.world.policy(), made.rows)
        margins = self.beta * (chosen - rejected)
        found = {
            "chosen_log_ratio": [float(chosen.mean())],
            "margin_clean": [float(margins[~flipped].mean())],
            "margin_flipped": [float(margins[flipped].mean())],
            "flipped_fitted": [float((margins[flipped] > 0).double().mean())],
        }
        if model.objective is not None:
            weights = gradient_weights(model.objective, made.examples, model.policy, model.reference)
            if weights is not None:
                found["flipped_weight"] = [float(weights[flipped].mean() / weights.mean())]
        return found


def log_ratios(policy: TabularPolicy, reference: TabularPolicy, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """log π/π_ref of the chosen and of the rejected responses, pair by pair."""
    import torch

    table = policy.table
    prompts = [table.prompt(row["prompt"], "a pair") for row in rows]
    ratios = (policy.probabilities() / reference.probabilities()).log().detach()

    def side(name: str) -> Tensor:
        places = [table.responses[at].index(row[name]) for at, row in zip(prompts, rows, strict=True)]
        return ratios[torch.tensor(prompts), torch.tensor(places)]

    return side("chosen"), side("rejected")


def gradient_weights(
    objective: Mapping[str, Any], examples: Examples, policy: TabularPolicy, reference: TabularPolicy
) -> Tensor | None:
    """How hard the loss of all pairs pulls at each one's chosen response, 1/number of pairs being 1: minus
    its slope in the log-probability. None for an objective that reads noise."""
    import torch

    from prefero.data.schema import SCHEMA
    from prefero.models.tabular.policy import score
    from prefero.objectives import PreferenceBatch, TokenLogps, from_config
    from prefero.objectives.needs import dry_run
    from prefero_lab.worlds.tabular_fitting import WholeBatch

    made = from_config(objective)
    if any(SCHEMA[name].drawn for name in dry_run(made).columns):
        return None
    batch = WholeBatch(made.eval(), examples, policy.table)
    with torch.no_grad():
        ours, theirs = (score(one, batch.row)[""] for one in (policy, reference))
    logps = ours.logps.clone().requires_grad_()
    models = {"policy": TokenLogps(logps, ours.mask), "reference": theirs}
    loss = batch.objective.loss(PreferenceBatch(models, batch.columns, batch.roles))
    (slope,) = torch.autograd.grad(loss, logps)
    return -len(examples) * slope[:, 0, 0]
