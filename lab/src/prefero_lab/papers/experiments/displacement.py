"""The experiment on displacement: pairs that are nearly alike, pairs that are not, and a score that tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn

    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Kept:
    """A model and the pairs that it was trained on."""

    model: nn.Module
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class DisplacementExperiment(TextExperiment):
    """The world ``safety`` with a mixture of pairs, and DPO on those with a low or a high CHES score.

    In a share ``opposed`` of the pairs the rejected response is one of the other kind, help where the chosen
    one refuses; in the rest the two differ in their first word. Rows tell which (``opposed``), and their
    length-normalised score under the start model (``ches``). Arms have ``keep``: the ``low`` or ``high``
    half, a ``random`` half, or ``all``; every arm takes the same number of ``steps``.

    Measured as in :class:`~prefero_lab.papers.text.TextExperiment`; log-ratios are those of pairs trained on.
    """

    world: str = "safety"
    pairs: int = 512
    prompts: int = 256
    opposed: float = 0.4
    steps: int = 80

    def make(self, seed: int) -> Made:
        from prefero.demo.start import one_thread

        made = super().make(seed)
        rows = mixed(made.rows, self.opposed, seed)
        with one_thread():
            scores = scored(made, rows)
        rows = [{**row, "ches": score} for row, score in zip(rows, scores, strict=True)]
        return replace(made, rows=rows)

    def start(self, made: Made) -> Kept:  # type: ignore[override]
        return Kept(made.start.model, made.rows)

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Kept]:  # type: ignore[override]
        from prefero_lab.papers.paper import Trained
        from prefero_lab.papers.training import trained

        own = {name: value for name, value in settings.items() if name != "keep"}
        rows = kept(made.rows, settings["keep"], seed)
        budget = {"max_steps": self.steps, "examples_per_step": self.examples_per_step}
        found = trained(str(made.start.folder), rows, own, seed=seed, **budget)
        return Trained(Kept(found.model, rows), found.curves)

    def measure(self, made: Made, model: Kept, seed: int) -> Mapping[str, Sequence[float]]:  # type: ignore[override]
        return super().measure(replace(made, rows=model.rows), model.model, seed)


def mixed(rows: Sequence[Mapping[str, Any]], opposed: float, seed: int) -> list[dict[str, Any]]:
    """Rows of the world ``safety``, of which a share has a rejected response of the other kind."""
    import random

    from prefero_lab.worlds.safety import kind, write_help, write_refusal

    rng = random.Random(f"displacement {seed}")
    found = []
    for row in rows:
        other = write_help if kind(row["chosen"]) == "refusal" else write_refusal
        text, own = other(rng), rng.random() < opposed
        pair = {name: row[name] for name in ("prompt", "chosen", "rejected")}
        found.append({**pair, **({"rejected": text} if own else {}), "opposed": own})
    return found


def scored(made: Made, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The length-normalised CHES score of each pair under the start model."""
    from prefero.data.formats import load_examples
    from prefero.doctor.policy import Policy

    policy = Policy.of(made.start.model, made.start.tokenizer, rows=len(rows))
    policy.read(load_examples(rows), range(len(rows)))
    return policy.ches.normalised.tolist()


def kept(rows: Sequence[dict[str, Any]], which: str, seed: int) -> list[dict[str, Any]]:
    """``low``, ``high`` or ``random``: half of the rows, in their order; ``all`` of them."""
    import random

    half, places = len(rows) // 2, list(range(len(rows)))
    ranked = sorted(places, key=lambda place: rows[place]["ches"])
    halves = {
        "all": places,
        "low": ranked[:half],
        "high": ranked[-half:],
        "random": random.Random(f"half {seed}").sample(places, half),
    }
    return [rows[place] for place in sorted(halves[which])]
