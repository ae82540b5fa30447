"""Language models measured side by side: what they answer to the same prompts, against one baseline."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prefero.data.examples import Text, spoken
from prefero.data.files import Source, load_rows
from prefero.data.formats import load_examples
from prefero.data.formats.fields import Fields
from prefero.data.formats.pairs import PROMPTS
from prefero.errors import PreferoError
from prefero.evaluate.divergence import divergence
from prefero.evaluate.diversity import distinct, expectation_adjusted_distinct, self_bleu
from prefero.evaluate.intervals import Mean, mean
from prefero.evaluate.judgements import Judgement, summary
from prefero.evaluate.judging import Scorer
from prefero.evaluate.win_rate import BothOrders
from prefero.generate.sampling import Sample, sample
from prefero.models.loading import ModelSource

CHOSEN = "chosen"
"""As a baseline: the data's own chosen responses."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and the chosen response that the data have for it."""

    text: Text
    chosen: str | None = None


def read_prompts(source: Source, limit: int, *, split: str = "test") -> list[Prompt]:
    """The first ``limit`` distinct prompts of preference data in any layout, or of rows with prompts alone.

    Raises :class:`PreferoError` for what cannot be read.
    """
    rows = load_rows(source, split=split)
    first = next(iter(rows))
    found: dict[str, Prompt] = {}
    if first.problem is None and "chosen" not in first.fields and Fields(first).first(PROMPTS):
        for row in rows:
            if row.problem:
                raise PreferoError(row.problem)
            fields = Fields(row)
            text = fields.turns(fields.first(PROMPTS) or PROMPTS[0])
            found.setdefault(repr(text), Prompt(text))
            if len(found) == limit:
                break
    else:
        for example in load_examples(source, split=split):
            chosen = next((one for one in example.responses if one.role == "chosen"), None)
            said = spoken(chosen.content)[-1:] if chosen else ()
            found.setdefault(repr(example.prompt), Prompt(example.prompt, said[0] if said else None))
            if len(found) == limit:
                break
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Sampling:
    """How models answer: ``count`` responses to each prompt, of ``max_new_tokens`` at most."""

    count: int = 1
    max_new_tokens: int = 128
    temperature: float = 1.0
    batch_size: int = 64
    seed: int = 0

    def draw(self, model: nn.Module, tokenizer: Any, prompts: Sequence[Text], who: str) -> list[Sample]:
        """Samples with the noise of ``who``: the same for equal names, independent for others."""
        key = hashlib.blake2b(f"{self.seed} {who}".encode(), digest_size=7).digest()
        generator = torch.Generator(next(model.parameters()).device).manual_seed(int.from_bytes(key))
        return sample(
            model,
            tokenizer,
            prompts,
            generator=generator,
            max_new_tokens=self.max_new_tokens,
            count=self.count,
            temperature=self.temperature,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``rows`` as in ``evaluation.json``, one a model, and every judgement with its response."""

    rows: tuple[dict[str, Any], ...]
    judgements: tuple[Judgement, ...]


def evaluate(
    models: dict[str, str],
    prompts: Sequence[Prompt],
    judge: Scorer | BothOrders,
    *,
    baseline: str = CHOSEN,
    reference: str | None = None,
    sampling: Sampling = Sampling(),
    report: Callable[[str], None] = lambda label: None,
) -> Evaluation:
    """What ``models`` (a name for each folder or hub name) answer to the prompts, judged against a baseline.

    One model is in memory at a time, with the reference. All models share their noise; the baseline has its
    own, so that equal models do not tie in every prompt.

    Args:
        baseline: a model, or ``"chosen"`` for the data's own responses.
        reference: a model to measure the divergence from, which is done on samples at temperature 1.
        judge: scores responses, the higher of two wins; or compares two.
        report: told what is being done.

    Raises:
        PreferoError: a model cannot be loaded, a prompt has no chosen response, or a reference has another
            vocabulary.
    """
    texts = [prompt.text for prompt in prompts]
    asked = [text for text in texts for _ in range(sampling.count)]
    report("baseline")
    if baseline == CHOSEN:
        theirs = [_chosen(prompt) for prompt in prompts for _ in range(sampling.count)]
    else:
        model, tokenizer = _load(baseline)
        theirs = [one.text for one in sampling.draw(model, tokenizer, texts, "baseline")]
        del model
    fixed = None if isinstance(judge, BothOrders) else _score(judge, asked, theirs)
    against = None if reference is None else _load(reference)
    rows, judgements = [], []
    for name, folder in models.items():
        report(name)
        model, tokenizer = _load(folder)
        samples = sampling.draw(model, tokenizer, texts, "models")
        ours = [one.text for one in samples]
        if isinstance(judge, BothOrders):
            scores: Sequence[float | None] = [None] * len(ours)
            preferences = [judge(*one) for one in zip(asked, ours, theirs, strict=True)]
        else:
            found = _score(judge, asked, ours)
            scores, preferences = found, [_preference(*both) for both in zip(found, fixed or (), strict=True)]
        judged = [
            Judgement(
                name,
                prompt,
                preference,
                float(len(our)),
                float(len(their)),
                response=our,
                baseline=their,
                score=score,
            )
            for prompt, preference, our, their, score in zip(
                asked, preferences, ours, theirs, scores, strict=True
            )
        ]
        means = {"length": mean([float(len(one.tokens)) for one in samples])}
        if against is not None and sampling.temperature == 1:
            means["kl"] = _divergence(name, model, tokenizer, samples, *against)
        rows.append(_with(summary(judged), means) | _diversity(samples, sampling.count, len(tokenizer)))
        judgements += judged
        del model
        gc.collect()
    return Evaluation(tuple(rows), tuple(judgements))


def _load(name: str) -> tuple[nn.Module, Any]:
    """A model and its tokenizer; of a run's folder what it trained."""
    inner = Path(name) / "model"
    source = ModelSource(str(inner) if inner.is_dir() else name)
    model = source.load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), source.processor()


def _chosen(prompt: Prompt) -> str:
    if prompt.chosen is None:
        raise PreferoError(
            "the data have no chosen response to every prompt: name a model as the baseline, --baseline MODEL"
        )
    return prompt.chosen


def _score(judge: Scorer, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]:
    scores = judge(prompts, responses)
    for place, score in enumerate(scores):
        if score != score:
            raise PreferoError(f"the judge's score of response {place + 1} is not a number.")
    return scores


def _preference(ours: float, theirs: float) -> float:
    return 0.5 if ours == theirs else float(ours > theirs)


def _divergence(
    name: str, model: nn.Module, tokenizer: Any, samples: Sequence[Sample], reference: nn.Module, other: Any
) -> Mean:
    if tokenizer.get_vocab() != other.get_vocab():
        raise PreferoError(
            f"{name} and the reference have different vocabularies: their divergence is not defined token by "
            "token. Leave --reference out, or name the model that it was trained from."
        )
    return divergence(model, reference, [one.cell for one in samples])


def _with(row: dict[str, Any], means: dict[str, Mean]) -> dict[str, Any]:
    interval = {name: [one.interval.low, one.interval.high] for name, one in means.items()}
    return {
        **row,
        **{name: one.value for name, one in means.items()},
        "interval": {**row["interval"], **interval},
    }


def _diversity(samples: Sequence[Sample], count: int, vocabulary: int) -> dict[str, float]:
    """Over all responses; self-BLEU within the prompts where there are several to each."""
    tokens = [one.tokens.tolist() for one in samples]
    found = {
        "distinct_1": distinct(tokens, 1),
        "distinct_2": distinct(tokens, 2),
        "adjusted_distinct": expectation_adjusted_distinct(tokens, vocabulary),
    }
    if count > 1:
        groups = [tokens[start : start + count] for start in range(0, len(tokens), count)]
        found["self_bleu"] = sum(map(self_bleu, groups)) / len(groups)
    return found
