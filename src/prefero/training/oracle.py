"""The comparison-oracle step (ComPO): the output layer's direction from comparisons, without a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefero.data.packing import Forest
from prefero.errors import PreferoError
from prefero.models.head import LogitRule, wide
from prefero.models.loading import innermost
from prefero.objectives.batch import PreferenceBatch, Signal
from prefero.objectives.presets.oracle import ComparisonOracle
from prefero.objectives.signals import TOKEN_STATE
from prefero.training.batches import MicroBatch
from prefero.training.step import Ranks, Scorer, Share

Sides = tuple[Tensor, Tensor]
"""Log-probabilities of a chosen and of a rejected response; a leading axis compares several models."""


def oracle(before: Sides, after: Sides) -> Float[Tensor, "*model"]:
    """−1 where the changed model raises the chosen and lowers the rejected response, both strictly; else +1.
    Chen et al., 2025, arXiv 2505.05465."""
    better = (after[0] > before[0]) & (after[1] < before[1])
    return 1.0 - 2.0 * better.to(after[0].dtype)


class Direction:
    """The direction ĝ of perturbations and the oracle's verdicts on them, added up block by block."""

    def __init__(self, like: Tensor) -> None:
        self.total = torch.zeros_like(like)
        self.asked = self.successes = 0

    def add(self, perturbations: Float[Tensor, "model *shape"], verdicts: Float[Tensor, "model"]) -> None:
        self.total += torch.tensordot(verdicts, perturbations, dims=1)
        self.asked += len(verdicts)
        self.successes += int((verdicts < 0).sum())

    @property
    def unit(self) -> Float[Tensor, "*shape"]:
        """Σ C(z) z, of length 1."""
        return self.total / self.total.norm().clamp(min=torch.finfo(self.total.dtype).tiny)

    def sparse(self, threshold: float) -> Float[Tensor, "*shape"]:
        """The direction with the entries below ``threshold`` set to 0, not made longer again."""
        unit = self.unit
        return torch.where(unit.abs() < threshold, 0.0, unit)

    def gradient(self, threshold: float, least: float) -> Float[Tensor, "*shape"]:
        """The gradient of a plain step: the sparse direction times the share of successes, or 0 if that is
        less than ``least``."""
        share = self.successes / max(self.asked, 1)
        return share * self.sparse(threshold) if share >= least else torch.zeros_like(self.total)


class ComparisonOracleStep:
    """An update rule: the output layer gets ComPO's direction for its gradient, everything else none.

    Each pair is asked about on its own, with the states that the layer reads computed once; the directions
    are averaged over the pairs of the step. Raises :class:`PreferoError` for a model whose output layer is
    tied to its embeddings, is not trained, or is no plain matrix.
    """

    def __init__(self, objective: ComparisonOracle, scorer: Scorer, ranks: Ranks) -> None:
        if ranks.count > 1:
            raise PreferoError("compo asks its questions on one process: start it without torchrun")
        self.objective, self.scorer = objective, scorer
        self.examples = 1

    def begin(self, batches: Sequence[MicroBatch]) -> None:
        self.examples = max(sum(int(batch.weight) * len(batch) for batch in batches), 1)

    @torch.no_grad()
    def share(self, policy: nn.Module, batch: MicroBatch, extra: frozenset[Signal], progress: float) -> Share:
        scored = self.scorer(policy, batch, extra=extra | {TOKEN_STATE}, progress=progress)
        terms = [(term.total * batch.weight, term.count * batch.weight) for term in self.objective(scored)]
        loss = sum(total / self.examples for total, _ in terms)
        head, rule = output_layer(policy)
        gradient = torch.zeros_like(head.weight)
        if batch.weight > 0:
            for question in questions(scored, _forest(batch), head, rule):
                gradient += self.answer(question) / self.examples
        with torch.enable_grad():
            pull = (head.weight * gradient).sum()
            return Share(pull + (loss - pull.detach()), scored, terms)

    def answer(self, question: Question) -> Float[Tensor, "vocabulary hidden"]:
        """The direction of one pair; 0 where the oracle leaves the pair out."""
        ask = self.objective
        weight = question.head.weight
        numbers = torch.Generator(weight.device).manual_seed(int(torch.randint(2**62, ())))
        before, direction = question.logps(None), Direction(weight)
        for _ in range(ask.perturbations):
            z = torch.randn(weight.shape, generator=numbers, device=weight.device, dtype=weight.dtype)
            after = question.logps(ask.radius * z)
            direction.add(z[None], oracle(before, after)[None])
        gradient = direction.gradient(ask.threshold, ask.successes)
        if (
            ask.probe is not None
            and oracle(before, question.logps(-ask.probe * direction.sparse(ask.threshold))) > 0
        ):
            return torch.zeros_like(gradient)
        return gradient


class Question:
    """One pair's states before the output layer, and its log-probabilities under a changed layer."""

    def __init__(
        self, head: nn.Linear, rule: LogitRule, states: Tensor, targets: Tensor, chosen: int
    ) -> None:
        self.head, self.rule = head, rule
        self.states, self.targets, self.chosen = states, targets, chosen
        self.outputs = wide(head(states))

    def logps(self, change: Float[Tensor, "vocabulary hidden"] | None) -> Sides:
        """Summed log-probabilities of the chosen and of the rejected response."""
        outputs = self.outputs if change is None else self.outputs + wide(self.states @ change.T)
        logits = self.rule(outputs)
        logps = logits.gather(1, self.targets[:, None])[:, 0] - logits.logsumexp(1)
        return logps[: self.chosen].sum(), logps[self.chosen :].sum()


def _forest(batch: MicroBatch) -> Forest:
    if not isinstance(batch.inputs, Forest):
        raise PreferoError(
            "compo moves the output layer of a causal language model, and this is another kind"
        )
    return batch.inputs


def questions(batch: PreferenceBatch, forest: Forest, head: nn.Linear, rule: LogitRule) -> list[Question]:
    """The question of each pair of a scored micro-batch."""
    mask, states = batch.mask, batch.models["policy"].signals[TOKEN_STATE]
    targets = forest.target[forest.cells[""].index.clamp(min=0)]
    chosen, rejected = (batch.roles.index(role) for role in ("chosen", "rejected"))
    asked = []
    for pair in range(len(mask)):
        first, second = mask[pair, chosen], mask[pair, rejected]
        read = torch.cat((states[pair, chosen][first], states[pair, rejected][second]))
        tokens = torch.cat((targets[pair, chosen][first], targets[pair, rejected][second]))
        asked.append(Question(head, rule, read, tokens, int(first.sum())))
    return asked


def output_layer(policy: nn.Module) -> tuple[nn.Linear, LogitRule]:
    """The layer that ComPO moves; see :class:`ComparisonOracleStep` for what is refused."""
    inner: Any = innermost(policy)
    head = inner.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise PreferoError(f"compo moves a plain output layer, and this model's is a {type(head).__name__}")
    if head.weight is inner.get_input_embeddings().weight:
        raise PreferoError(
            "compo would move the input embeddings with the output layer, which are tied: load the model "
            "with tie_word_embeddings=False"
        )
    if not head.weight.requires_grad:
        raise PreferoError(
            "compo moves the output layer, and this model's does not train: leave adapters out"
        )
    return head, LogitRule.of(inner.config.get_text_config())
