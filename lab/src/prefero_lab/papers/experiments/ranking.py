"""The experiment on how a policy's own reward orders answers to new prompts that it did not write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prefero.data.trie import Cell
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Ranked(Made):
    """One seed's start model and pairs, and held-out ``pairs``: of two answers the one with the higher gold
    comes first, by the ``gaps``, and ``before`` is how much likelier the start model finds it."""

    texts: list[dict[str, Any]]
    pairs: list[tuple[Cell, Cell]]
    gaps: list[float]
    before: Tensor


@dataclass(frozen=True)
class RankingExperiment(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` that also orders pairs of the start model's answers
    to ``held_out_pairs`` held-out prompts by the log-ratio log π/π_start, the reward of most methods.

    Arms may have ``without``, names of columns that they are not shown. Two answers whose gold (or what the
    annotators of that ``taste`` think) differs by no more than ``equal`` are equals. Measured beside what
    that experiment measures: ``ranking``, 1 where the better of two unequal answers has the higher log-ratio,
    ½ where both have the same; ``equal_margin`` and ``unequal_margin``, how far apart the log-ratios are in
    pairs of equals (without a sign) and of unequal answers (better less worse); ``ternary``, their difference
    over their sum, in all; and ``correlation``, that of log-ratios and gold over all pairs, 0 where
    log-ratios do not differ.
    """

    held_out_pairs: int = 512
    equal: float = 0.3

    def make(self, seed: int) -> Ranked:
        from prefero.demo.start import one_thread

        made = super().make(seed)
        with one_thread():
            texts = self.held_out(made, seed)
            pairs = cells(made, texts)
            before = margins(made.start.model, pairs)
        gaps = [row["chosen_score"] - row["rejected_score"] for row in texts]
        return Ranked(made.start, made.rows, made.held_out, texts, pairs, gaps, before)

    def held_out(self, made: Made, seed: int) -> list[dict[str, Any]]:
        """Rows as training has them, on held-out prompts, the better answer being the chosen one."""
        from prefero.demo.text import stream
        from prefero.feedback.judges import score_all
        from prefero.feedback.pairing import bradley_terry_pairs
        from prefero.generate.sampling import sample

        world, numbers = self.text_world, stream(self.text_world.name, "ranking", seed)
        samples = sample(
            made.start.model,
            made.start.tokenizer,
            world.draw_prompts("held-out", self.held_out_pairs, seed),
            count=2,
            max_new_tokens=world.max_new_tokens,
            generator=numbers,
            batch_size=1024,
        )
        scored = score_all(world.judge(self.taste), samples)
        rows = bradley_terry_pairs(scored, scale=1e9, generator=numbers)
        return [row for row in rows if row["chosen"] and row["rejected"]]

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        hidden = settings.get("without")
        if hidden is None:
            return super().train(made, settings, seed)
        own = {name: value for name, value in settings.items() if name != "without"}
        rows = [{name: row[name] for name in row if name not in hidden} for row in made.rows]
        return super().train(replace(made, rows=rows), own, seed)

    def measure(self, made: Made, model: nn.Module, seed: int) -> Mapping[str, Sequence[float]]:
        from prefero.demo.start import one_thread

        assert isinstance(made, Ranked)
        with one_thread():
            moved = (margins(model, made.pairs) - made.before).tolist()
        return {**super().measure(made, model, seed), **orders(moved, made.gaps, self.equal)}


def cells(made: Made, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Cell, Cell]]:
    """The two sides of each row, tokenised as for training."""
    from prefero.data.formats import load_examples
    from prefero.doctor.policy import Policy

    policy = Policy.of(made.start.model, made.start.tokenizer, rows=len(rows))
    policy.read(load_examples(rows), range(len(rows)))
    return policy.pairs


def margins(model: nn.Module, pairs: Sequence[tuple[Cell, Cell]]) -> Tensor:
    """Log-probability of the first answer of each pair minus that of the second, in nats."""
    from prefero.evaluate.ranking import pair_logps

    return pair_logps(model, pairs).margin()


def orders(moved: Sequence[float], gaps: Sequence[float], equal: float) -> dict[str, list[float]]:
    """Measures of :class:`RankingExperiment`, from the margins' changes and the gaps of gold."""
    import numpy as np

    change, gap = np.array(moved), np.array(gaps)
    same = gap <= equal
    tied, apart = np.abs(change[same]), change[~same]
    # a margin of an unordered pair has no sign: both orders are there
    varied = np.concatenate([change, -change]).std() > 0
    both = np.corrcoef(np.concatenate([change, -change]), np.concatenate([gap, -gap]))[0, 1] if varied else 0
    total = np.abs(apart.mean()) + tied.mean()
    return {
        "ranking": ((apart > 0) + 0.5 * (apart == 0)).tolist(),
        "equal_margin": tied.tolist(),
        "unequal_margin": apart.tolist(),
        "ternary": [float((apart.mean() - tied.mean()) / total) if total else 0.0],
        "correlation": [float(both)],
    }
