"""How hard prompts are for models with one baseline: fitted from the judgements of several, kept in a file.

Length-controlled win rates need a difficulty γ of each prompt (Dubois et al., 2024, arXiv 2404.04475). The
paper fits them over all models of its leaderboard at once,

    logit P(model ≻ baseline) = θ_model + φ_model · tanh(ΔL / s_model) + γ_prompt,

and so is done here; each model's own regression then scales them by its ψ. γ is in logits, and high where
models win more often. Its penalty is a ridge where the paper's is L1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize
from scipy.special import expit

from prefero.bounded_json import read_as
from prefero.data.examples import Text
from prefero.errors import PreferoError
from prefero.evaluate.judgements import Judgement, one_judge
from prefero.evaluate.length_control import LARGEST, length_feature
from prefero.storage import write_json

Array = NDArray[np.float64]

RIDGE = 0.1
"""The penalty of squared difficulties, weak: it only keeps a prompt finite that every model wins or loses. On
the models of AlpacaEval's leaderboard 0.03 and 1 give nearly the same win rates."""

SLIGHT_RIDGE = 1e-3
"""The same for θ and φ, of a model that wins or loses everywhere."""


def prompt_hash(prompt: Text, beside: str | None = None) -> str:
    """The name of a prompt in a file of difficulties: the SHA-256 of its text in UTF-8, or of its turns as
    JSON with sorted keys; followed by a zero byte and the digest of what is ``beside`` it, where something
    is."""
    if not isinstance(prompt, str):
        prompt = json.dumps([dict(turn) for turn in prompt], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256((prompt if beside is None else f"{prompt}\0{beside}").encode()).hexdigest()


def hash_of(judged: Judgement) -> str:
    """The :func:`prompt_hash` of the prompt that was judged on."""
    return prompt_hash(judged.prompt, judged.beside)


@dataclass(frozen=True, slots=True)
class Difficulties:
    """Difficulties in ``logits`` by :func:`prompt_hash`, and the ``models``, ``judge`` and ``baseline`` of
    the judgements that they were fitted from."""

    logits: Mapping[str, float]
    models: tuple[str, ...]
    judge: str | None = None
    baseline: str | None = None

    def of(self, judged: Sequence[Judgement]) -> list[float | None]:
        """The difficulty of each judgement's prompt; None where no model was judged on it."""
        return [self.logits.get(hash_of(each)) for each in judged]

    def refuse_others(self, judged: Sequence[Judgement]) -> None:
        """Raise :class:`PreferoError` for judgements of one model by another judge, against another baseline,
        or on prompts of which none has a difficulty."""
        for what, own, theirs in zip(
            ("judge", "baseline"), (self.judge, self.baseline), one_judge(judged), strict=True
        ):
            if own and theirs and own != theirs:
                raise PreferoError(
                    f"the difficulties were fitted with the {what} {own!r}, and these are judgements with "
                    f"{theirs!r}: difficulties hold for one judge and one baseline. Fit them from judgements "
                    "like these"
                )
        if set(self.of(judged)) == {None}:
            raise PreferoError(
                f"the difficulties are of none of the prompts that {judged[0].model} was judged on: they "
                "were fitted from other prompts"
            )

    def write(self, file: Path) -> None:
        """Write them as JSON: ``models``, ``judge``, ``baseline``, and ``difficulties`` in logits by the
        SHA-256 of the prompt."""
        content: dict[str, Any] = {"models": list(self.models), "judge": self.judge}
        write_json(file, content | {"baseline": self.baseline, "difficulties": dict(self.logits)})


class _File(BaseModel):
    """The content of a file of difficulties."""

    model_config = ConfigDict(extra="forbid")

    models: Annotated[list[str], Field(min_length=1)]
    judge: str | None = None
    baseline: str | None = None
    difficulties: dict[str, Annotated[float, Field(strict=True, ge=-LARGEST, le=LARGEST)]]


def read_difficulties(file: Path) -> Difficulties:
    """The difficulties in a file that :meth:`Difficulties.write` wrote. Raises :class:`PreferoError` where it
    holds something else."""
    read = read_as(_File, file.read_bytes(), str(file))
    return Difficulties(read.difficulties, tuple(read.models), read.judge, read.baseline)


@dataclass(frozen=True)
class Comparisons:
    """The judgements of several models as numbers, for one fit: the numbers of a row's ``model`` and
    ``prompt``, its length term, and the preference."""

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    judge: tuple[str | None, str | None]
    model: NDArray[np.int64]
    prompt: NDArray[np.int64]
    length: Array
    preference: Array

    @classmethod
    def of(cls, models: Mapping[str, Sequence[Judgement]]) -> Comparisons:
        """Models that tie everywhere, as the baseline does against itself, tell nothing of prompts; nor do
        those whose lengths are not known."""
        telling = {
            name: judged
            for name, judged in models.items()
            if any(each.preference != 0.5 for each in judged) and None not in map(_gap, judged)
        }
        rows = [each for judged in telling.values() for each in judged]
        hashes = [hash_of(each) for each in rows]
        prompts = {key: place for place, key in enumerate(dict.fromkeys(hashes))}
        lengths = [length_feature(np.array([*map(_gap, judged)], np.float64)) for judged in telling.values()]
        return cls(
            tuple(telling),
            tuple(prompts),
            one_judge(rows),
            np.repeat(np.arange(len(telling)), [len(judged) for judged in telling.values()]),
            np.array([prompts[key] for key in hashes], np.int64),
            np.concatenate([np.zeros(0), *lengths]),
            np.array([each.preference for each in rows], np.float64),
        )

    def fit(self, without: str | None = None, start: Array | None = None) -> tuple[Difficulties, Array]:
        """The difficulties by all models, or all but one; and the whole solution, from which another fit may
        ``start``."""
        count, prompts = len(self.models), len(self.prompts)
        kept = np.ones(len(self.model), bool)
        if without in self.models:
            kept = self.model != self.models.index(without)
        model, prompt = self.model[kept], self.prompt[kept]
        length, target = self.length[kept], self.preference[kept]
        ridge = np.repeat([SLIGHT_RIDGE, RIDGE], [2 * count, prompts])

        def objective(parameters: Array) -> tuple[float, Array]:
            own, by_length, difficulty = np.split(parameters, [count, 2 * count])
            logits = own[model] + by_length[model] * length + difficulty[prompt]
            residual = expit(logits) - target
            loss = (np.logaddexp(0, -logits) + (1 - target) * logits).sum() + (
                ridge * parameters**2
            ).sum() / 2
            slopes = [
                np.bincount(model, residual, count),
                np.bincount(model, residual * length, count),
                np.bincount(prompt, residual, prompts),
            ]
            return float(loss), np.concatenate(slopes) + ridge * parameters

        solution = minimize(
            objective,
            np.zeros(2 * count + prompts) if start is None else start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 5000, "maxfun": 10000, "gtol": 1e-5, "ftol": 1e-13},
        ).x
        judged = np.bincount(prompt, minlength=prompts) > 0
        logits = {
            key: float(solution[2 * count + place]) for place, key in enumerate(self.prompts) if judged[place]
        }
        names = tuple(name for name in self.models if name != without)
        return Difficulties(logits, names, *self.judge), solution


def _gap(judged: Judgement) -> float | None:
    """The baseline's length minus the model's, where both are known."""
    if judged.length is None or judged.baseline_length is None:
        return None
    return judged.baseline_length - judged.length


def fit_difficulties(models: Mapping[str, Sequence[Judgement]]) -> Difficulties:
    """The difficulties of prompts by the judgements of several models against one baseline, by their names.

    Raises:
        PreferoError: several judges or baselines, or no model whose lengths are known and that wins or loses
            somewhere.
    """
    comparisons = Comparisons.of(models)
    if not comparisons.models:
        raise PreferoError(
            "there are no judgements to fit difficulties from: it takes responses, or length and "
            "baseline_length, and models that win or lose"
        )
    return comparisons.fit()[0]


def difficulties_by_others(models: Mapping[str, Sequence[Judgement]]) -> dict[str, Difficulties]:
    """For each model the difficulties by all others, so that none is judged by prompts that are called hard
    because it lost there."""
    comparisons = Comparisons.of(models)
    if not comparisons.models:
        return {name: Difficulties({}, ()) for name in models}
    start = comparisons.fit()[1]
    return {name: comparisons.fit(name, start)[0] for name in models}
