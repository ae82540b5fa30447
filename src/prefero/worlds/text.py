"""What a text world is: prompts, a corpus, a gold score, and a small model to start from."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from prefero.errors import PreferoError, nearest
from prefero.feedback.judges import score_all
from prefero.feedback.pairing import bradley_terry_pairs
from prefero.feedback.sampling import sample
from prefero.worlds.start import Pair, Report, StartModel, StartRecipe, start_model

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
    something else than gold, by their names. ``label_scale`` is how sure annotators are: they prefer the
    better of two with probability σ(scale · gap of scores).
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
        """``count`` different prompts of one side of the split.

        Raises:
            PreferoError: there are fewer.
        """
        prompts = self.prompts(held_out=split == "held-out")
        if not 0 < count <= len(prompts):
            raise PreferoError(
                f"world {self.name}: {count} {split} prompts were asked for; there are {len(prompts)}."
            )
        return random.Random(f"{self.name} prompts {split} {seed}").sample(prompts, count)

    def corpus(self, count: int, seed: int) -> list[Pair]:
        """The first ``count`` prompts and responses of the corpus, on training prompts."""
        return list(islice(self._corpus(seed), count))

    def _corpus(self, seed: int) -> Iterator[Pair]:
        rng = random.Random(f"{self.name} corpus {seed}")
        prompts = self.prompts(held_out=False)
        while True:
            prompt = rng.choice(prompts)
            yield prompt, self.write(prompt, rng)

    def start_model(
        self, cache: Path | None = None, *, seed: int = 0, report: Report | None = None
    ) -> StartModel:
        """The model that every method starts from: trained once per seed, then read from disk.

        ``report`` is told the steps done and their number, and never called if the model is on disk.
        """
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
        """The score by gold, or by one of the tastes.

        Raises:
            PreferoError: no taste has the name.
        """
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
        """Two samples of the start model for each of ``count`` training prompts, labelled by an annotator.

        Rows have ``prompt``, ``chosen``, ``rejected``, and ``chosen_score``, ``rejected_score`` (gold, or
        what the annotator of that ``taste`` thinks); a few prompts give none
        (:func:`~prefero.feedback.pairing.bradley_terry_pairs`).
        """
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
