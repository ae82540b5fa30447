"""Language models measured side by side: their responses to the same prompts, judged against a baseline."""

from __future__ import annotations

import gc
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from prefero.data.chat import Writing
from prefero.data.encode import prompt_ids
from prefero.data.examples import Example, Text, spoken
from prefero.data.files import Source, load_rows
from prefero.data.formats import LOOK_AT, load_examples, renamed
from prefero.data.formats.conversations import prompt_alone
from prefero.data.formats.fields import Fields
from prefero.data.formats.names import first_of_prompts, survey
from prefero.errors import PreferoError
from prefero.evaluate.divergence import divergence
from prefero.evaluate.diversity import distinct, expectation_adjusted_distinct, self_bleu
from prefero.evaluate.intervals import Mean, mean
from prefero.evaluate.judgements import Judgement, summary
from prefero.evaluate.judges import ScoringJudge, reads_examples
from prefero.evaluate.reading import RunReading, readings_of_models
from prefero.evaluate.win_rate import BothOrders
from prefero.generate.sampling import Sample, as_examples, sample
from prefero.models.loading import ModelSource
from prefero.models.text import context_length

CHOSEN = "chosen"
"""As a baseline: the data's own chosen responses."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and its chosen response in the data. ``example`` is the row that it stands in, for the rest
    of what a model reads (tools, template options) and for how the prompt ends in training; None for a prompt
    that was given alone."""

    text: Text
    chosen: str | None = None
    example: Example | None = field(default=None, compare=False)

    @property
    def asked(self) -> Text | Example:
        """The prompt as :func:`~prefero.generate.sampling.sample` takes it, with all that is known of it."""
        return self.text if self.example is None else self.example


def read_prompts(
    source: Source,
    limit: int,
    *,
    split: str = "test",
    columns: Mapping[str, str] = MappingProxyType({}),
    format: str = "auto",
    map: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> list[Prompt]:
    """The first ``limit`` distinct prompts of preference data in any layout, or of rows with prompts alone.
    ``columns``, ``format`` and ``map`` are as :func:`prefero.load_examples` takes them.

    Raises :class:`PreferoError` for rows that cannot be read.
    """
    distinct: dict[str, Prompt] = {}
    for prompt in _prompts(source, split, columns, format, map):
        row = prompt.example
        beside = None if row is None else (row.tools, row.template_options)
        distinct.setdefault(repr((prompt.text, beside)), prompt)
        if len(distinct) == limit:
            break
    return list(distinct.values())


def _prompts(
    source: Source,
    split: str,
    columns: Mapping[str, str],
    format: str,
    map: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None,
) -> Iterator[Prompt]:
    rows = load_rows(source, split=split)
    first = next(iter(rows))
    named = renamed(first, columns).fields
    alone = first.problem is None and "chosen" not in named and first_of_prompts(named)
    if alone and map is None and set(columns.values()) <= set(first.fields):
        habits = survey([renamed(row, columns) for row in islice(rows, LOOK_AT)])
        for row in rows:
            if row.problem:
                raise PreferoError(row.problem)
            fields = Fields(renamed(row, columns), habits)
            example = Example(
                prompt_alone(fields),
                (),
                tools=fields.tools(),
                template_options=fields.template_options(),
                origin=fields.origin,
            )
            yield Prompt(example.prompt, example=example)
        return
    for example in load_examples(source, split=split, columns=columns, format=format, map=map):
        answers = [spoken(each.content) for each in example.responses if each.role == "chosen"]
        yield Prompt(example.prompt, answers[0][-1] if answers and answers[0] else None, example)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling of ``count`` responses per prompt, of at most ``max_new_tokens``."""

    count: int = 1
    max_new_tokens: int = 128
    temperature: float = 1.0
    batch_size: int = 64
    seed: int = 0

    def draw(
        self,
        model: nn.Module,
        tokenizer: Any,
        prompts: Sequence[Text | Example],
        who: str,
        writing: Writing | None = None,
    ) -> list[Sample]:
        """Samples with the noise of ``who``: the same for equal names, independent for different names.
        ``writing`` is how the prompts are written."""
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
            writing=writing,
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``rows`` as in ``evaluation.json``, one per model, every judgement with its response, and what is to be
    said of how the prompts were written and which were left out."""

    rows: tuple[dict[str, Any], ...]
    judgements: tuple[Judgement, ...]
    notes: tuple[str, ...] = ()


def evaluate(
    models: dict[str, str],
    prompts: Sequence[Prompt],
    judge: ScoringJudge | BothOrders,
    *,
    baseline: str = CHOSEN,
    reference: str | None = None,
    sampling: Sampling = Sampling(),
    template: str | None = None,
    max_length: int | None = None,
    report: Callable[[str], None] = lambda label: None,
) -> Evaluation:
    """Judge the responses of ``models`` (folders or hub names, by name) to the prompts against a baseline.

    One model is in memory at a time, besides the reference. All models share their noise; the baseline has
    its own, so that equal models do not tie on every prompt. Prompts are written as a run's were in training;
    those of a model that is no run as those of the first run.

    Args:
        baseline: a model, or ``"chosen"`` for the data's own responses.
        reference: a model to measure the divergence from, if ``sampling`` is at temperature 1.
        judge: scores responses, where the higher score wins; or compares two.
        template: the chat template, in place of the runs' own: ``"auto"``, ``"none"`` or a file.
        max_length: most tokens of a prompt with its response, in place of the runs' own; by default the
            models' context. Prompts that leave less room than ``sampling.max_new_tokens`` are left out.
        report: called with what is done next.

    Raises:
        PreferoError: a model cannot be loaded, a prompt has no chosen response, no prompt leaves room for a
            response, or a reference has another vocabulary.
    """
    sampled = [*models.values(), *([] if baseline == CHOSEN else [baseline])]
    readings, notes = readings_of_models(sampled, template=template, max_length=max_length)
    prompts, left_out = _with_room(prompts, readings, sampling.max_new_tokens)
    notes = [*notes, *left_out]
    asked = [prompt.asked for prompt in prompts]
    answered = [prompt for prompt in prompts for _ in range(sampling.count)]
    if baseline != CHOSEN or isinstance(judge, BothOrders):  # else it scores the chosen responses first
        _try(judge, prompts[0])
    if baseline == CHOSEN:
        report("judging the chosen responses of the data")
        theirs = [_chosen(prompt) for prompt in prompts for _ in range(sampling.count)]
    else:
        report(f"responses of the baseline, {baseline}")
        model, tokenizer = _load(baseline)
        writing = readings[baseline].writing
        theirs = [sample.text for sample in sampling.draw(model, tokenizer, asked, "baseline", writing)]
        del model
    baseline_scores = None if isinstance(judge, BothOrders) else _score(judge, answered, theirs)
    against = None if reference is None else _load(reference)
    rows, judgements = [], []
    for name, folder in models.items():
        report(f"responses of {name}")
        model, tokenizer = _load(folder)
        samples = sampling.draw(model, tokenizer, asked, "models", readings[folder].writing)
        ours = [sample.text for sample in samples]
        judged = _judged(name, judge, answered, ours, theirs, baseline_scores)
        means = {"length": mean([float(len(sample.tokens)) for sample in samples])}
        if against is not None and sampling.temperature == 1:
            means["kl"] = _divergence(name, model, tokenizer, samples, *against)
        rows.append(_with(summary(judged), means) | _diversity(samples, sampling.count, len(tokenizer)))
        judgements += judged
        del model
        gc.collect()
    return Evaluation(tuple(rows), tuple(judgements), tuple(notes))


def _try(judge: ScoringJudge | BothOrders, prompt: Prompt) -> None:
    """Let the judge judge the first prompt, so that one that cannot is known before responses are drawn."""
    responses = [prompt.chosen or "Yes.", "No."]
    if isinstance(judge, BothOrders):
        judge(*_shown(judge, [prompt]), *responses)
    else:
        _score(judge, [prompt, prompt], responses)


def _with_room(
    prompts: Sequence[Prompt], readings: Mapping[str, RunReading], max_new_tokens: int
) -> tuple[Sequence[Prompt], list[str]]:
    """The prompts that leave each model room for a response of so many tokens, and a note on the others."""
    long: set[int] = set()
    for name, reading in readings.items():
        source = _source(name)
        limits = [limit for limit in (reading.max_length, context_length(source.config())) if limit]
        if limits:
            asked = as_examples([prompt.asked for prompt in prompts])
            read = prompt_ids(asked, source.processor(), writing=reading.writing)
            long |= {i for i, ids in enumerate(read) if len(ids) + max_new_tokens > min(limits)}
    if not long:
        return prompts, []
    told = (
        f"{len(long)} of {len(prompts)} prompts leave no room for a response of {max_new_tokens} tokens "
        "within the models' context (--max-length)"
    )
    if len(long) == len(prompts):
        raise PreferoError(f"{told}: lower --max-new-tokens, or raise --max-length as far as the models go")
    return [prompt for i, prompt in enumerate(prompts) if i not in long], [f"left out: {told}"]


def _judged(
    name: str,
    judge: ScoringJudge | BothOrders,
    prompts: Sequence[Prompt],
    ours: Sequence[str],
    theirs: Sequence[str],
    baseline_scores: Sequence[float] | None,
) -> list[Judgement]:
    """The judgements of one model's responses; ``baseline_scores`` are those of a judge that scores."""
    scores: Sequence[float | None] = [None] * len(ours)
    if isinstance(judge, BothOrders):
        preferences = [judge(*triple) for triple in zip(_shown(judge, prompts), ours, theirs, strict=True)]
    else:
        scores = own = _score(judge, prompts, ours)
        preferences = [
            0.5 if our == their else float(our > their)
            for our, their in zip(own, baseline_scores or (), strict=True)
        ]
    return [
        Judgement(name, prompt.text, preference, float(len(our)), float(len(their)), None, our, their, score)
        for prompt, preference, our, their, score in zip(
            prompts, preferences, ours, theirs, scores, strict=True
        )
    ]


def _load(name: str) -> tuple[nn.Module, Any]:
    """A model and its tokenizer; for the folder of a run, the trained model."""
    source = _source(name)
    model = source.load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), source.processor()


def _source(name: str) -> ModelSource:
    inner = Path(name) / "model"
    return ModelSource(str(inner) if inner.is_dir() else name)


def _chosen(prompt: Prompt) -> str:
    if prompt.chosen is None:
        raise PreferoError(
            "some prompts have no chosen response in the data: name a model as the baseline, --baseline MODEL"
        )
    return prompt.chosen


def _shown(judge: ScoringJudge | BothOrders, prompts: Sequence[Prompt]) -> list[Any]:
    """The prompts as a judge reads them: with their rows, or alone."""
    return [prompt.asked if reads_examples(judge) else prompt.text for prompt in prompts]


def _score(judge: ScoringJudge, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    scores = judge(_shown(judge, prompts), responses)
    for index, score in enumerate(scores):
        if math.isnan(score):
            raise PreferoError(f"the judge's score of response {index + 1} is not a number.")
    return scores


def _divergence(
    name: str, model: nn.Module, tokenizer: Any, samples: Sequence[Sample], reference: nn.Module, other: Any
) -> Mean:
    if tokenizer.get_vocab() != other.get_vocab():
        raise PreferoError(
            f"{name} and the reference have different vocabularies: their divergence per token is not "
            "defined. Leave out --reference, or name the model that it was trained from."
        )
    return divergence(model, reference, [sample.cell for sample in samples])


def _with(row: dict[str, Any], means: dict[str, Mean]) -> dict[str, Any]:
    interval = {name: [each.interval.low, each.interval.high] for name, each in means.items()}
    return {
        **row,
        **{name: each.value for name, each in means.items()},
        "interval": {**row["interval"], **interval},
    }


def _diversity(samples: Sequence[Sample], count: int, vocabulary: int) -> dict[str, float]:
    """The diversity of all responses; self-BLEU within prompts with several responses."""
    tokens = [sample.tokens.tolist() for sample in samples]
    measures = {
        "distinct_1": distinct(tokens, 1),
        "distinct_2": distinct(tokens, 2),
        "adjusted_distinct": expectation_adjusted_distinct(tokens, vocabulary),
    }
    if count > 1:
        groups = [tokens[start : start + count] for start in range(0, len(tokens), count)]
        measures["self_bleu"] = fmean(map(self_bleu, groups))
    return measures
