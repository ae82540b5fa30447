"""Models measured side by side: their responses to the same prompts, judged against a baseline."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from torch import nn

from prefero.data.chat import Writing
from prefero.data.encode import prompt_ids
from prefero.data.examples import Example, Text
from prefero.data.files import Source, load_rows
from prefero.data.formats import LOOK_AT, load_examples, renamed
from prefero.data.formats.conversations import prompt_alone
from prefero.data.formats.fields import Fields
from prefero.data.formats.names import first_of_prompts, survey
from prefero.data.pictures import Picture
from prefero.errors import PreferoError
from prefero.evaluate.difficulties import Difficulties
from prefero.evaluate.divergence import divergences
from prefero.evaluate.diversity import distinct, expectation_adjusted_distinct, self_bleu
from prefero.evaluate.intervals import Mean, mean
from prefero.evaluate.judgements import Judgement
from prefero.evaluate.judges import RewardModel, ScoringJudge, reads_examples
from prefero.evaluate.reading import RunReading, readings_of_models
from prefero.evaluate.summaries import mean_by, summaries
from prefero.evaluate.verdicts import Verdicts, baseline_scores, chosen_text, try_judge, verdicts
from prefero.evaluate.win_rate import BothOrders
from prefero.generate.sampling import Sample, as_examples
from prefero.models.diffusion.source import is_pipeline
from prefero.models.kind import Answer, Kind
from prefero.models.loading import ModelSource, kind_of
from prefero.models.text import TextKind, context_length
from prefero.training.run_folder import need_model, record_of

CHOSEN = "chosen"
"""As a baseline: the data's own chosen responses."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, and its chosen response in the data, a text or an image. ``example`` is the row that it
    stands in, for the rest of what a model reads (tools, template options) and for how the prompt ends in
    training; None for a prompt that was given alone."""

    text: Text
    chosen: str | Picture | None = None
    example: Example | None = field(default=None, compare=False)

    @property
    def beside(self) -> str | None:
        """A digest of what a model reads besides the text; None where it reads nothing else."""
        row = self.example
        if row is None or not (row.images or row.tools or row.template_options):
            return None
        said = repr((row.prompt_identity, row.tools, row.template_options))
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

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
        distinct.setdefault(repr((prompt.text, prompt.beside)), prompt)
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
        pictures = (each.content for each in example.responses if each.role == CHOSEN)
        image = next((content for content in pictures if isinstance(content, Picture)), None)
        yield Prompt(example.prompt, image or chosen_text(example), example)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling of ``count`` responses per prompt; of texts, of at most ``max_new_tokens`` (128)."""

    count: int = 1
    max_new_tokens: int | None = None
    temperature: float = 1.0
    batch_size: int = 64
    seed: int = 0

    def draw(
        self,
        kind: Kind,
        model: nn.Module,
        prompts: Sequence[Text | Example],
        who: str,
        writing: Writing | None = None,
    ) -> Sequence[Answer]:
        """Responses with the noise of ``who``: the same for equal names, independent for different names.
        ``writing`` is how the prompts are written."""
        key = hashlib.blake2b(f"{self.seed} {who}".encode(), digest_size=7).digest()
        return kind.respond(
            model,
            prompts,
            seed=int.from_bytes(key),
            count=self.count,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            batch_size=self.batch_size,
            writing=writing,
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``rows`` as in ``evaluation.json``, one per model, every judgement with its response, and what is to be
    said of how the prompts were written, which were left out, and of the win rates."""

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
    judge_name: str | None = None,
    difficulties: Difficulties | None = None,
    report: Callable[[str], None] = lambda label: None,
) -> Evaluation:
    """Judge the responses of ``models`` (folders or hub names, by name) to the prompts against a baseline.

    The responses are what the models' kind draws: texts, or images. What is measured of tokens is left out
    where there are none.

    One model is in memory at a time, besides the reference. All models share their noise; the baseline has
    its own, so that equal models do not tie on every prompt. Prompts are written as a run's were in training;
    those of a model that is no run as those of the first run.

    Args:
        baseline: a model, or ``"chosen"`` for the data's own responses.
        reference: a language model to measure the divergence from, if ``sampling`` is at temperature 1.
        judge: scores responses, where the higher score wins; or compares two.
        template: the chat template, in place of the runs' own: ``"auto"``, ``"none"`` or a file.
        max_length: most tokens of a prompt with its response, in place of the runs' own; by default the
            models' context. Prompts that leave less room than ``sampling.max_new_tokens`` are left out.
        judge_name: the judge's name in the judgements.
        difficulties: of the prompts, for length-controlled win rates; by default each model's are fitted from
            the judgements of the others.
        report: called with what is done next.

    Raises:
        PreferoError: a model cannot be loaded or draws no responses, some models draw texts and others
            images, the judge reads no images, a prompt has no chosen response, no prompt leaves room for a
            response, or a reference has another vocabulary.
    """
    named = [name for name in dict.fromkeys((*models.values(), baseline, reference)) if name]
    opened, drawn = opened_models([name for name in named if name != CHOSEN])
    kinds = {name: model.kind for name, model in opened.items() if name in (*models.values(), baseline)}
    draw_images = _draw_images(kinds)
    if draw_images:
        _refuse_text_settings(judge, template, max_length, difficulties)
    if reference is not None and any(kind.name != "language" for kind in kinds.values()):
        _refuse_divergence(reference, baseline, kinds)
        reference = None
    readings, notes = readings_of_models(list(kinds), template=template, max_length=max_length)
    prompts, left_out = _with_room(prompts, kinds, readings, sampling.max_new_tokens)
    notes = [*notes, *drawn, *left_out]
    origin: dict[str, Any] = {"judge": judge_name, "against": baseline}
    if difficulties is not None:  # before any response is drawn
        difficulties.refuse_others(
            [
                Judgement(next(iter(models)), prompt.text, 0.5, beside=prompt.beside, **origin)
                for prompt in prompts
            ]
        )
    asked = [prompt.asked for prompt in prompts]
    answered = [prompt for prompt in prompts for _ in range(sampling.count)]
    judged_on = [prompt.asked for prompt in answered]
    first = next(iter(kinds.values()))
    if baseline != CHOSEN or isinstance(judge, BothOrders):  # else it scores the chosen responses first
        try_judge(judge, prompts[0].asked, *_trial(first, prompts[0]))
    if baseline == CHOSEN:
        report("judging the chosen responses of the data")
        chosen = [_chosen(first, prompt) for prompt in prompts]
        theirs = [response for response in chosen for _ in range(sampling.count)]
    else:
        report(f"responses of the baseline, {baseline}")
        writing = readings[baseline].writing
        model = opened[baseline].load()
        theirs = [
            answer.content for answer in sampling.draw(kinds[baseline], model, asked, "baseline", writing)
        ]
        del model
    their_scores = baseline_scores(judge, judged_on, theirs)
    against = None if reference is None else opened[reference]
    reference_model = None if against is None else against.load()
    judgements: list[Judgement] = []
    measured = {}
    for name, folder in models.items():
        report(f"responses of {name}")
        kind, model = kinds[folder], opened[folder].load()
        answers = sampling.draw(kind, model, asked, "models", readings[folder].writing)
        ours = [answer.content for answer in answers]
        judged = verdicts(judge, judged_on, ours, theirs, their_scores)
        judgements += _judgements(name, answered, judged, ours, theirs, origin)
        samples = [answer for answer in answers if isinstance(answer, Sample)]
        means, shares = _of_tokens(kind, samples, sampling.count) if samples else ({}, {})
        divergent = samples and sampling.temperature == 1
        if divergent and against is not None and reference_model is not None:
            nats = _divergences(name, kind, model, samples, against.kind, reference_model)
            mean_of, alone = _over_prompts("kl", nats, sampling.count)
            means, shares = means | mean_of, shares | alone
        measured[name] = means, shares
        del model
        gc.collect()
    rows, said = summaries(judgements, difficulties=difficulties)
    rows = [_with(row, measured[row["method"]][0]) | measured[row["method"]][1] for row in rows]
    return Evaluation(tuple(rows), tuple(judgements), (*notes, *_sizes(judgements), *said))


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model that is not loaded yet, with its kind; ``adapters`` is the folder of a denoiser's, which do not
    name the model that they belong to."""

    kind: Kind
    adapters: Path | None = None

    def load(self) -> nn.Module:
        model = self.kind.load()
        if self.adapters is not None:
            model = PeftModel.from_pretrained(model, self.adapters)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return model.to(device).eval()


def opened_models(names: Sequence[str]) -> tuple[dict[str, OpenedModel], list[str]]:
    """The models of folders or hub names, and how those draw whose responses are no tokens one after another.

    Of a run it is the trained model, with the run's kind and options; a model that is no run has the options
    of the first run of its kind. Raises :class:`PreferoError` where there is none.
    """
    runs = {name: _opened_run(Path(name)) for name in names if (Path(name) / "run.json").is_file()}
    opened = {}
    for name in names:
        if name in runs:
            opened[name] = runs[name][0]
            continue
        kind = kind_of("auto", ModelSource(name))
        options = next((own for run, own in runs.values() if run.kind.name == kind.name), {})
        opened[name] = OpenedModel(
            kind_of(kind.name, ModelSource(name, kind.name, options)) if options else kind
        )
    notes = [
        f"{name}: responses are {model.kind.sampling(None)}"
        for name, model in opened.items()
        if not model.kind.samples_are_text
    ]
    return opened, notes


def _opened_run(folder: Path) -> tuple[OpenedModel, dict[str, Any]]:
    """The trained model of a run, and its options in the recipe."""
    record, trained = record_of(folder), need_model(folder)
    begun = (record.get("config") or {}).get("model")
    begun = begun if isinstance(begun, Mapping) else {}
    own, start = dict(begun.get("options") or {}), begun.get("name")
    kind, options = str((record.get("model") or {}).get("kind") or "auto"), own
    if kind == "diffusion" and start:  # the run keeps the denoiser alone
        if (trained / "adapter_config.json").is_file():
            return OpenedModel(kind_of(kind, ModelSource(start, kind, own)), trained), own
        if is_pipeline(start):
            options = {"pipeline": start, **own}
    return OpenedModel(kind_of(kind, ModelSource(str(trained), kind, options))), own


def _draw_images(kinds: Mapping[str, Kind]) -> bool:
    """Whether the models draw images. Raises :class:`PreferoError` where only some do."""
    images = [name for name, kind in kinds.items() if not kind.samples_are_text]
    texts = [name for name, kind in kinds.items() if kind.samples_are_text]
    if images and texts:
        raise PreferoError(
            f"{images[0]} draws images, and {texts[0]} writes texts: no judge compares the two. Evaluate "
            "them apart"
        )
    return bool(images)


def _refuse_text_settings(
    judge: ScoringJudge | BothOrders,
    template: str | None,
    max_length: int | None,
    difficulties: Difficulties | None,
) -> None:
    if reads_examples(judge):
        asked = judge.judge if isinstance(judge, BothOrders) else judge
        what = "a reward model" if isinstance(asked, RewardModel) else "the reward of a run"
        raise PreferoError(
            f"the models draw images, and the judge is {what}, which reads texts: give a function, --judge "
            "module:function, of (prompt, image), which returns a score, or of (prompt, first, second), "
            "which returns the probability that the first image is preferred"
        )
    for option, given in (("--template", template), ("--max-length", max_length)):
        if given is not None:
            raise PreferoError(f"{option} is {given}, but the models draw images to captions: leave it out")
    if difficulties is not None:
        raise PreferoError(
            "--difficulties control the length of texts, and the models draw images: leave it out"
        )


def _refuse_divergence(reference: str, baseline: str, kinds: Mapping[str, Kind]) -> None:
    """Raise :class:`PreferoError` for a reference of models that are no language models, which have no
    divergence of tokens, unless it is what wins are against, as by default."""
    if reference != baseline:
        name, kind = next((name, kind.name) for name, kind in kinds.items() if kind.name != "language")
        raise PreferoError(
            f"the divergence from the reference {reference} is of the tokens of language models, and {name} "
            f"is of kind {kind}: leave --reference out, or name it as --baseline"
        )


def _trial(kind: Kind, prompt: Prompt) -> tuple[str | Image.Image, str | Image.Image]:
    """Two responses that a judge is tried with."""
    if kind.samples_are_text:
        return (prompt.chosen if isinstance(prompt.chosen, str) and prompt.chosen else "Yes."), "No."
    blank = kind.shown(Picture(Image.new("RGB", (8, 8))))
    return (kind.shown(prompt.chosen) if isinstance(prompt.chosen, Picture) else blank), blank


def _with_room(
    prompts: Sequence[Prompt],
    kinds: Mapping[str, Kind],
    readings: Mapping[str, RunReading],
    max_new_tokens: int | None,
) -> tuple[Sequence[Prompt], list[str]]:
    """The prompts that leave each model room for its longest response, and a note on the others."""
    long: set[int] = set()
    longest = 0
    for name, kind in kinds.items():
        if not isinstance(kind, TextKind):
            continue
        limits = [limit for limit in (readings[name].max_length, context_length(kind.config)) if limit]
        if limits:
            asked = as_examples([prompt.asked for prompt in prompts])
            read = prompt_ids(
                asked, kind.tokenizer, kind.images, readings[name].writing, apart=kind.reads_apart
            )
            response = kind.longest_response(max_new_tokens)
            longest = max(longest, response)
            long |= {i for i, ids in enumerate(read) if len(ids) + response > min(limits)}
    if not long:
        return prompts, []
    told = (
        f"{len(long)} of {len(prompts)} prompts leave no room for a response of {longest} tokens "
        "within the models' context (--max-length)"
    )
    if len(long) == len(prompts):
        raise PreferoError(f"{told}: lower --max-new-tokens, or raise --max-length as far as the models go")
    return [prompt for i, prompt in enumerate(prompts) if i not in long], [f"left out: {told}"]


def _judgements(
    name: str,
    prompts: Sequence[Prompt],
    judged: Verdicts,
    ours: Sequence[str | Image.Image],
    theirs: Sequence[str | Image.Image],
    origin: Mapping[str, Any],
) -> list[Judgement]:
    """The judgements of one model's responses."""
    scores: Sequence[float | None] = judged.scores or [None] * len(ours)

    def length(response: str | Image.Image) -> float | None:
        return float(len(response)) if isinstance(response, str) else None

    return [
        Judgement(
            name,
            prompt.text,
            preference,
            length(our),
            length(their),
            None,
            our,
            their,
            score,
            beside=prompt.beside,
            **origin,
        )
        for prompt, preference, our, their, score in zip(
            prompts, judged.preferences, ours, theirs, scores, strict=True
        )
    ]


def _chosen(kind: Kind, prompt: Prompt) -> str | Image.Image:
    if prompt.chosen is None:
        raise PreferoError(
            "some prompts have no chosen response in the data: name a model as the baseline, --baseline MODEL"
        )
    if isinstance(prompt.chosen, Picture) == kind.samples_are_text:
        draws, has = ("texts", "an image") if kind.samples_are_text else ("images", "a text")
        raise PreferoError(
            f"the models draw {draws}, and the chosen response of a prompt in the data is {has}: name a "
            "model as the baseline, --baseline MODEL"
        )
    return kind.shown(prompt.chosen) if isinstance(prompt.chosen, Picture) else prompt.chosen


def _sizes(judged: Sequence[Judgement]) -> list[str]:
    """A note where images of different sizes were compared."""
    images = [
        each for one in judged for each in (one.response, one.baseline) if isinstance(each, Image.Image)
    ]
    sizes = sorted({image.size for image in images})
    if len(sizes) < 2:
        return []
    told = ", ".join(f"{width} × {height}" for width, height in sizes)
    return [f"the judge compared images of different sizes, in pixels: {told}"]


def _of_tokens(kind: Kind, samples: Sequence[Sample], count: int) -> tuple[dict[str, Mean], dict[str, float]]:
    """The mean number of tokens, and the diversity of all responses; self-BLEU within prompts with several
    responses."""
    assert isinstance(kind, TextKind)  # others draw no tokens
    tokens = [sample.tokens.tolist() for sample in samples]
    measures = {
        "distinct_1": distinct(tokens, 1),
        "distinct_2": distinct(tokens, 2),
        "adjusted_distinct": expectation_adjusted_distinct(tokens, len(kind.tokenizer)),
    }
    if count > 1:
        groups = [tokens[start : start + count] for start in range(0, len(tokens), count)]
        measures["self_bleu"] = fmean(map(self_bleu, groups))
    means, alone = _over_prompts("length", [float(len(each)) for each in tokens], count)
    return means, measures | alone


def _over_prompts(name: str, values: Sequence[float], count: int) -> tuple[dict[str, Mean], dict[str, float]]:
    """The mean of a measure of responses, ``count`` of them to each prompt, with its interval over prompts;
    or, of one prompt, the mean alone."""
    means = mean_by([place // count for place in range(len(values))], values)
    return ({name: mean(means)}, {}) if len(means) > 1 else ({}, {name: means[0]})


def _divergences(
    name: str, kind: Kind, model: nn.Module, samples: Sequence[Sample], other: Kind, reference: nn.Module
) -> list[float]:
    """The divergence of each response, in nats."""
    if other.name != "language" or kind.processor.get_vocab() != other.processor.get_vocab():
        raise PreferoError(
            f"{name} and the reference have different vocabularies: their divergence per token is not "
            "defined. Leave out --reference, or name the model that it was trained from."
        )
    return divergences(model, reference, [sample.cell for sample in samples])


def _with(row: dict[str, Any], means: dict[str, Mean]) -> dict[str, Any]:
    interval = {name: [each.interval.low, each.interval.high] for name, each in means.items()}
    return {
        **row,
        **{name: each.value for name, each in means.items()},
        "interval": {**row["interval"], **interval},
    }
