"""Policies of a text world, measured on prompts that no training saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from prefero.evaluate.divergence import divergence
from prefero.evaluate.intervals import Mean, mean
from prefero.evaluate.win_rate import WinRate, win_rate
from prefero.feedback.judges import ByScore
from prefero.feedback.sampling import Sample, sample
from prefero.worlds.start import StartModel
from prefero.worlds.text import TextWorld, stream


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a policy, over held-out prompts.

    ``gold`` is the world's gold reward and ``gain`` how much of it is gained over the start model, prompt by
    prompt under common noise. ``win_rate`` is against other samples of the start model; ``kl`` is KL(policy ‖
    start) in nats a response; ``length`` in tokens, end token included; ``measures`` are the world's.
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
    """A yardstick for the policies of one world: the same prompts and the same noise for all of them.

    The start model answers each prompt twice: with the policies' noise, for differences, and with its own, as
    the opponent in win rates.
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
