"""Text worlds: prompts, a corpus, a gold score, a small model to start from, and measurements of policies."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from prefero.demo.start import Pair, Report, StartModel, StartRecipe, start_model
from prefero.errors import PreferoError, nearest
from prefero.evaluate.divergence import divergence
from prefero.evaluate.intervals import Mean, mean
from prefero.evaluate.win_rate import WinRate, win_rate
from prefero.feedback.judges import ByScore, score_all
from prefero.feedback.pairing import bradley_terry_pairs
from prefero.generate.sampling import Sample, sample

Split = Literal["train", "held-out"]

TextMeasure = Callable[[str, str], float]
"""(prompt, text) → a number."""


def stream(*names: str | int) -> torch.Generator:
    """A generator of its own for every purpose and seed: no two draws share their noise by accident."""
    digest = hashlib.sha256(" ".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@dataclass(frozen=True)
class TextWorld:
    """A seeded task on one CPU core whose true reward is known.

    ``prompts(held_out=…)`` lists one side of the split, in a fixed order; ``write(prompt, rng)`` gives a
    response of the corpus that the start model learns from; ``gold`` scores any text. ``measures`` are more
    numbers that describe a text, shares as 0 and 1; ``tastes`` are the scores of annotators who like
    something else than gold. Annotators prefer the better of two with probability σ(``label_scale`` · gap of
    scores).
    """

    name: str
    summary: str
    words: tuple[str, ...]
    prompts: Callable[..., list[str]]
    write: Callable[[str, random.Random], str]
    gold: TextMeasure
    measures: Mapping[str, TextMeasure] = field(default_factory=dict)
    tastes: Mapping[str, TextMeasure] = field(default_factory=dict)
    max_new_tokens: int = 40
    label_scale: float = 4.0
    recipe: StartRecipe = field(default_factory=StartRecipe)

    def draw_prompts(self, split: Split, count: int, seed: int) -> list[str]:
        """``count`` different prompts of one side of the split. Raises :class:`PreferoError` where there are
        fewer."""
        prompts = self.prompts(held_out=split == "held-out")
        if not 0 < count <= len(prompts):
            raise PreferoError(
                f"world {self.name}: {count} {split} prompts were asked for; there are {len(prompts)}."
            )
        return random.Random(f"{self.name} prompts {split} {seed}").sample(prompts, count)

    def corpus(self, count: int, seed: int) -> list[Pair]:
        """The first ``count`` prompts and responses of the corpus, on training prompts."""
        rng = random.Random(f"{self.name} corpus {seed}")
        prompts = self.prompts(held_out=False)
        drawn = (rng.choice(prompts) for _ in range(count))
        return [(prompt, self.write(prompt, rng)) for prompt in drawn]

    def start_model(
        self, cache: Path | None = None, *, seed: int = 0, report: Report | None = None
    ) -> StartModel:
        """The model that every method starts from: trained once per seed, then read from disk. ``report`` is
        told the steps done and their number, while it is trained."""
        return start_model(
            self.name,
            self.words,
            lambda count: self.corpus(count, seed),
            self.recipe,
            seed=seed,
            cache=cache,
            report=report,
        )

    def judge(self, taste: str | None = None) -> TextMeasure:
        """The score by gold, or by one of the tastes. Raises :class:`PreferoError` for an unknown one."""
        if taste is None:
            return self.gold
        if taste not in self.tastes:
            known = ", ".join(self.tastes) or "none"
            raise PreferoError(
                f"world {self.name} has no taste {taste!r}{nearest(taste, self.tastes)} (known: {known})"
            )
        return self.tastes[taste]

    def preference_pairs(
        self,
        start: StartModel,
        count: int,
        seed: int,
        *,
        scale: float | None = None,
        taste: str | None = None,
    ) -> list[dict[str, Any]]:
        """Two samples of the start model for each of ``count`` training prompts, labelled by an annotator
        (:func:`~prefero.feedback.pairing.bradley_terry_pairs`); a few prompts give none. Rows have
        ``prompt``, ``chosen``, ``rejected``, ``chosen_score``, ``rejected_score``, by gold or the
        ``taste``."""
        judge = self.judge(taste)
        generator = stream(self.name, "pairs", seed)
        prompts = self.draw_prompts("train", count, seed)
        samples = sample(
            start.model,
            start.tokenizer,
            prompts,
            count=2,
            max_new_tokens=self.max_new_tokens,
            generator=generator,
            batch_size=1024,
        )
        scale = self.label_scale if scale is None else scale
        return bradley_terry_pairs(score_all(judge, samples), scale=scale, generator=generator)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A policy measured on held-out prompts.

    ``gold`` is the world's gold reward and ``gain`` its increase over the start model, prompt by prompt under
    common noise. ``win_rate`` is against other samples of the start model; ``kl`` is KL(policy ‖ start) in
    nats a response; ``length`` in tokens, end token included; ``measures`` are the world's.
    """

    gold: Mean
    gain: Mean
    win_rate: WinRate
    kl: Mean
    length: Mean
    measures: Mapping[str, Mean]
    samples: tuple[Sample, ...]

    def row(self) -> dict[str, Any]:
        """The numbers as a row of ``evaluation.json``, with their 95 % intervals."""
        means = {"gold_reward": self.gold, "gain": self.gain, "kl": self.kl, "length": self.length}
        means |= self.measures
        interval = {name: [mean.interval.low, mean.interval.high] for name, mean in means.items()}
        interval["win_rate"] = [self.win_rate.interval.low, self.win_rate.interval.high]
        values = {name: mean.value for name, mean in means.items()}
        return {**values, "win_rate": self.win_rate.rate, "interval": interval}


class HeldOut:
    """Held-out prompts of a world, and noise that is the same for every policy measured on them.

    The start model answers each prompt with the policies' noise, for differences, and with its own, as the
    opponent in win rates.
    """

    def __init__(self, world: TextWorld, start: StartModel, *, prompts: int = 1024, seed: int = 0) -> None:
        self.world, self.start, self.seed = world, start, seed
        self.prompts = world.draw_prompts("held-out", prompts, seed)
        self.before = self._sample(start.model, "policies")
        self.opponent = self._sample(start.model, "opponent")

    def measure(self, policy: nn.Module) -> Outcome:
        """Sample from ``policy`` and measure it; the start model itself gets a gain and a divergence of 0."""
        samples = self._sample(policy, "policies")
        gold = [self.gold(one) for one in samples]
        gains = [after - self.gold(before) for after, before in zip(gold, self.before, strict=True)]
        return Outcome(
            gold=mean(gold),
            gain=mean(gains),
            win_rate=win_rate(ByScore(self.world.gold), samples, self.opponent),
            kl=divergence(policy, self.start.model, [one.cell for one in samples]),
            length=mean([float(len(one.tokens)) for one in samples]),
            measures={
                name: mean([of(str(one.prompt), one.text) for one in samples])
                for name, of in self.world.measures.items()
            },
            samples=tuple(samples),
        )

    def gold(self, one: Sample) -> float:
        """The world's gold reward of a sample."""
        return self.world.gold(str(one.prompt), one.text)

    def _sample(self, model: nn.Module, noise: str) -> list[Sample]:
        return sample(
            model,
            self.start.tokenizer,
            self.prompts,
            max_new_tokens=self.world.max_new_tokens,
            generator=stream(self.world.name, "held-out", noise, self.seed),
            batch_size=1024,
        )
