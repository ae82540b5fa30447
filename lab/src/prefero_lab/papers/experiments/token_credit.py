"""The experiment on token credit: one word of a review is turned round, and which one has to be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

    from torch import Tensor, nn

    from prefero.demo.start import StartModel
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Corrupted:
    """One seed's start model, and pairs that differ in one word: to train on, and held-out ones."""

    start: StartModel
    rows: list[dict[str, Any]]
    held_out: list[dict[str, Any]]


@dataclass(frozen=True)
class Guess:
    """In place of a policy's log-ratios: ``chance``, or the start model's ``likelihood`` of each token."""

    by: str


@dataclass(frozen=True)
class TokenCredit:
    """An :class:`~prefero_lab.papers.paper.Experiment` on the world ``reviews``. Chosen responses are the
    best of ``best_of`` texts of the corpus; in the rejected one an adjective is replaced by one of the other
    sign, which makes the review worth less.

    Arms are settings of a training run, or ``{"guess": …}``. Measured on the rejected responses of
    ``held_out`` pairs, one number each: ``found``, whether log π/π_start is lowest at the replaced word, and
    ``near``, at it or the token behind it (for a guess by chance, the probability); and, for a policy, the
    ``credit``, log π/π_start at the replaced word, and ``before``, the mean of its size at tokens before it.
    """

    pairs: int = 512
    held_out: int = 256
    best_of: int = 8
    epochs: float = 3.0
    examples_per_step: int = 32

    @property
    def settings(self) -> Mapping[str, Any]:
        return asdict(self)

    def make(self, seed: int) -> Corrupted:
        from prefero.demo.reviews import REVIEWS
        from prefero.demo.start import one_thread

        with one_thread():
            start = REVIEWS.start_model(seed=seed)
        sizes = (("train", self.pairs), ("held-out", self.held_out))
        train, held_out = (
            corrupted_pairs(REVIEWS.draw_prompts(split, size, seed), self.best_of, seed)  # type: ignore[arg-type]
            for split, size in sizes
        )
        return Corrupted(start, train, held_out)

    def start(self, made: Corrupted) -> nn.Module:
        return made.start.model

    def train(self, made: Corrupted, settings: Mapping[str, Any], seed: int) -> Trained[Any]:
        from prefero_lab.papers.paper import Trained
        from prefero_lab.papers.training import trained

        if "guess" in settings:
            return Trained(Guess(settings["guess"]))
        budget = {"num_train_epochs": self.epochs, "examples_per_step": self.examples_per_step}
        return trained(str(made.start.folder), made.rows, settings, seed=seed, **budget)

    def measure(self, made: Corrupted, model: nn.Module | Guess, seed: int) -> Mapping[str, Sequence[float]]:
        import numpy as np

        from prefero.data.trie import Cell
        from prefero.demo.start import one_thread

        tokenizer, cells, places = made.start.tokenizer, [], []
        for row in made.held_out:
            chosen, rejected = (
                np.array(tokenizer(row[side], add_special_tokens=False).input_ids)
                for side in ("chosen", "rejected")
            )
            cells.append(Cell(np.array(tokenizer(row["prompt"]).input_ids), rejected))
            places.append(int(np.flatnonzero(chosen != rejected)[0]))
        if isinstance(model, Guess) and model.by == "chance":
            chance = [1 / len(cell.response) for cell in cells]
            return {"found": chance, "near": [2 * one for one in chance]}
        with one_thread():
            credit = token_logps(made.start.model, cells)
            if not isinstance(model, Guess):
                credit = [ours - one for ours, one in zip(token_logps(model, cells), credit, strict=True)]
        both = list(zip(credit, places, strict=True))
        lowest = [int(one.argmin()) - place for one, place in both]
        found = {
            "found": [float(behind == 0) for behind in lowest],
            "near": [float(behind in (0, 1)) for behind in lowest],
        }
        if not isinstance(model, Guess):
            found["credit"] = [float(one[place]) for one, place in both]
            found["before"] = [float(one[:place].abs().mean()) for one, place in both]
        return found


def token_logps(model: nn.Module, cells: Sequence[Any]) -> list[Tensor]:
    """log-probabilities of each response's tokens."""
    from prefero.data.trie import TokenExample
    from prefero.models.scoring import scored_rows

    found: list[Any] = [None] * len(cells)
    for row, scored in scored_rows(model, [TokenExample((cell,), {}, i) for i, cell in enumerate(cells)]):
        for place, i in enumerate(row):
            found[i] = scored.logps[place, 0, : len(cells[i].response)].double()
    return found


def corrupted_pairs(prompts: Sequence[str], best_of: int, seed: int) -> list[dict[str, Any]]:
    """Good reviews, and the same with a word turned round."""
    import random

    from prefero.demo.reviews import REVIEWS

    rng, rows = random.Random(f"token credit {seed} {len(prompts)}"), []
    for prompt in prompts:
        texts = [REVIEWS.write(prompt, rng) for _ in range(best_of)]
        chosen = max(texts, key=lambda text: REVIEWS.gold(prompt, text))
        rejected = turned_round(chosen, rng)
        if REVIEWS.gold(prompt, rejected) < REVIEWS.gold(prompt, chosen):
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def turned_round(text: str, rng: random.Random) -> str:
    """A review with one of its adjectives replaced by one of the other sign that fits as well."""
    import re

    from prefero.demo.reviews import ASPECTS, GENERAL

    families = [GENERAL, *(own for aspects in ASPECTS.values() for own in aspects.values())]
    other = {word: sides[1 - side] for sides in families for side in (0, 1) for word in sides[side]}
    places = [found for found in re.finditer(r"\w+", text) if found.group() in other]
    one = rng.choice(places)
    return text[: one.start()] + rng.choice(other[one.group()]) + text[one.end() :]
