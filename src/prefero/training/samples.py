"""Answers of the policy to the same prompts as it trains, and a judge's verdicts on them: ``samples.jsonl``,
and the metrics ``eval_samples/…``."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefero.data.examples import Example, Message
from prefero.errors import PreferoError, number_of
from prefero.evaluate.intervals import mean
from prefero.evaluate.verdicts import Judging, baseline_scores, chosen_text, try_judge, verdicts
from prefero.evaluate.win_rate import BothOrders, win_rate_of
from prefero.models.kind import Kind
from prefero.storage import read_lines, write_lines
from prefero.training.config import PreferenceArguments, SampleSettings

METRICS = "samples/"
"""Stands before the names of the metrics, which are held-out ones (``eval_samples/win_rate``)."""

OPTIONS = ("max_new_tokens", "temperature")
"""Settings that a kind of model may take or not."""


@dataclass(eq=False)
class Samples(TrainerCallback):
    """Draws the answers before training, every so many steps and after it, and has them judged.

    Each line of ``file`` is a prompt with its answer ``before``, those after ``steps``, each with its score
    and preference where a judge gave some, and ``after``, of the model that is kept, which is that of
    ``step``. A run that is resumed loses the answers after its checkpoint, and draws the same ones again.
    Nothing of training changes: the generators are left as they were.

    Args:
        draw: the answers of a model to ``prompts``, the same each time.
        sampling: how they are drawn, in words.
        log: the trainer's, for metrics.
        aside: a context whose time does not count as training.
        interrupted: whether a signal has stopped training.
        held_out: the name of the held-out set that the prompts are of; empty, where there is one alone.
    """

    file: Path
    settings: SampleSettings
    prompts: Sequence[Any]
    draw: Callable[[nn.Module], list[Any]]
    sampling: str
    log: Callable[[dict[str, float]], None]
    aside: Callable[[], AbstractContextManager[None]]
    interrupted: Callable[[], bool]
    judge: Judging | None = None
    held_out: str = ""
    lines: list[dict[str, Any]] | None = field(default=None, init=False)
    """Of the run; None before it has begun and after it."""
    row: Mapping[str, Any] = field(default_factory=dict, init=False)
    """The verdicts on the model that is kept, as in a row of ``evaluation.json``; empty without a judge."""
    _training: bool = field(default=False, init=False)
    _baseline: tuple[list[str], list[float] | None] = field(default=([], None), init=False)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._training, self.lines = True, None  # what the folder holds is not known before all have begun

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **models: Any
    ) -> None:
        self._begin(models["model"], state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **models: Any
    ) -> None:
        every = self.settings.every
        if every is not None:
            steps = math.ceil(every * state.max_steps) if every < 1 else int(every)
            if state.global_step % steps == 0 or state.global_step == state.max_steps:
                self._take(models["model"], state.global_step)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **models: Any,
    ) -> None:
        """Add the metrics of this step, so that the best model may be chosen by them; to those of one
        held-out set, where there are several, as an early stop counts evaluations."""
        measured = "_".join(filter(None, ["eval", self.held_out, "runtime"]))
        if not self._training or metrics is None or measured not in metrics:
            return
        self._begin(models["model"], state.global_step)
        if is_metric(args.metric_for_best_model) and state.global_step:
            self._take(models["model"], state.global_step)
        metrics.update(self._metrics(state.global_step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **models: Any
    ) -> None:
        self._begin(models["model"], state.global_step)
        self._training = False
        if not self.lines or self.interrupted():
            return
        if (
            args.load_best_model_at_end
            and is_metric(args.metric_for_best_model)
            and not state.best_global_step
        ):
            print(
                f"no evaluation gave {args.metric_for_best_model}: the model of the last step is kept",
                file=sys.stderr,
            )
        kept = state.global_step
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            kept = state.best_global_step or kept
        if kept:
            self._take(models["model"], kept, is_last=kept == state.global_step)
        for line in self.lines:
            (entry,) = [one for one in line["steps"] if one["step"] == kept] or [{"response": line["before"]}]
            line |= {"step": kept, "after": entry["response"]}
            if "score" in entry:
                line["scores"] = {**line.get("scores", {}), "after": entry["score"]}
        self.row = self._row(kept)
        write_lines(self.file, self.lines)

    def _begin(self, model: nn.Module, step: int) -> None:
        """Draw the answers from before training; of a run that is resumed read them."""
        if not self._training or self.lines is not None:
            return
        shown = [shown_prompt(prompt) for prompt in self.prompts]
        if step:
            self.lines = list(read_lines(self.file))
            if [line.get("prompt") for line in self.lines] != shown:
                told = f"{self.file} does not have the answers from before training: no more are drawn"
                print(told, file=sys.stderr)
                self.lines = []
            for line in self.lines:
                line["steps"] = [one for one in line.get("steps", []) if one["step"] <= step]
                for name in ("step", "after"):
                    line.pop(name, None)
                line.get("scores", {}).pop("after", None)
        else:
            with self.aside(), generators_kept():
                answers = self.draw(model)
            self.lines = [
                {"prompt": prompt, "before": text, "steps": []}
                for prompt, text in zip(shown, answers, strict=True)
            ]
        if self.judge is not None and self.lines:
            self._begin_judging(step)
        write_lines(self.file, self.lines)

    def _begin_judging(self, step: int) -> None:
        assert self.lines is not None
        if self.settings.against == "chosen":
            for line, prompt in zip(self.lines, self.prompts, strict=True):
                line["chosen"] = chosen_text(prompt)
        theirs = [line["chosen" if self.settings.against == "chosen" else "before"] for line in self.lines]
        before = [line["before"] for line in self.lines]
        with self.aside(), generators_kept():
            self._baseline = theirs, baseline_scores(self.judge, self.prompts, theirs)  # type: ignore[arg-type]
            entries = self._verdicts(before)
        if step:
            return
        for line, entry in zip(self.lines, entries, strict=True):
            if "score" in entry:
                line["scores"] = {"before": entry["score"]}
        self.log(_metrics_of(entries))

    def _take(self, model: nn.Module, step: int, *, is_last: bool = True) -> None:
        """Draw and judge the answers after a step, unless that was done already. They are logged, if the step
        ``is_last`` of those that are done."""
        if not self.lines or any(one["step"] == step for one in self.lines[0]["steps"]):
            return
        with self.aside(), generators_kept():
            answers = self.draw(model)
            try:
                entries = self._verdicts(answers)
            except PreferoError as error:
                print(f"step {step}: the samples are not judged, because {error}", file=sys.stderr)
                entries = [{} for _ in answers]
        for line, answer, entry in zip(self.lines, answers, entries, strict=True):
            line["steps"] = sorted(
                [*line["steps"], {"step": step, "response": answer, **entry}], key=lambda one: one["step"]
            )
        write_lines(self.file, self.lines)
        if is_last and (metrics := self._metrics(step)):
            self.log(metrics)

    def _verdicts(self, answers: list[str]) -> list[dict[str, float]]:
        """The preference and the score of each answer, as far as there are such."""
        if self.judge is None:
            return [{} for _ in answers]
        judged = verdicts(self.judge, self.prompts, answers, *self._baseline)
        if judged.scores is None:
            return [{"preference": preference} for preference in judged.preferences]
        return [
            {"preference": preference, "score": score}
            for preference, score in zip(judged.preferences, judged.scores, strict=True)
        ]

    def _at(self, step: int) -> list[dict[str, Any]]:
        return [one for line in self.lines or () for one in line["steps"] if one["step"] == step]

    def _metrics(self, step: int) -> dict[str, float]:
        return _metrics_of(self._at(step))

    def _row(self, step: int) -> dict[str, Any]:
        metrics = {name.removeprefix(f"eval_{METRICS}"): value for name, value in self._metrics(step).items()}
        named = {"win_rate": "win_rate_against_chosen"} if self.settings.against == "chosen" else {}
        row: dict[str, Any] = {"interval": {}}
        for name in ("win_rate", "score"):
            if name in metrics:
                row[named.get(name, name)] = metrics[name]
            if f"{name}_low" in metrics:
                row["interval"][named.get(name, name)] = [metrics[f"{name}_low"], metrics[f"{name}_high"]]
        return row if len(row) > 1 else {}


def _metrics_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The win rate with Wilson's interval over prompts, and the mean score with its own; empty where the
    answers were not judged."""
    preferences = [one["preference"] for one in entries if "preference" in one]
    scores = [one["score"] for one in entries if "score" in one]
    found: dict[str, float] = {}
    if preferences:
        rate = win_rate_of(preferences)
        found |= {
            "win_rate": rate.rate,
            "win_rate_low": rate.interval.low,
            "win_rate_high": rate.interval.high,
        }
    if scores:
        found["score"] = fmean(scores)
    if len(scores) > 1:
        interval = mean(scores).interval
        found |= {"score_low": interval.low, "score_high": interval.high}
    return {f"eval_{METRICS}{name}": value for name, value in found.items()}


def is_metric(name: str | None) -> bool:
    """Whether a metric is one of samples."""
    return name is not None and name.removeprefix("eval_").startswith(METRICS)


def samples_of(
    kind: Kind,
    examples: Sequence[Example],
    settings: SampleSettings,
    args: PreferenceArguments,
    judge: Judging | None,
) -> tuple[list[Any], dict[str, Any]]:
    """The prompts that are answered during a run, and the options of the answers; none of both in several
    processes, which is said.

    Raises :class:`PreferoError` for settings that the kind of model does not have, for a judge that cannot
    judge the first prompt, and for a metric of the best model that no judge gives.
    """
    options = {name: value for name, value in settings.given_values().items() if name in OPTIONS}
    if unknown := sorted(options.keys() - kind.sample_options):
        raise PreferoError(
            f"samples.{unknown[0]} is set, but the samples of a model of kind {kind.name} have no such "
            "setting: leave it out"
        )
    if judge is not None and not kind.samples_are_text:
        raise PreferoError(
            f"samples.judge judges texts, and a model of kind {kind.name} answers with images: leave it out"
        )
    if is_metric(args.metric_for_best_model):
        _refuse_metric(str(args.metric_for_best_model), args, judge)
    if not settings.prompts:
        return [], options
    if args.world_size > 1:
        _say(args, f"no samples: they are drawn in one process alone, and this run has {args.world_size}")
        return [], options
    prompts = kind.prompts(examples, settings.prompts, args.max_length, **options)
    if not prompts:
        none = "no samples: no prompt leaves room for an answer within max_length"
        if is_metric(args.metric_for_best_model):
            raise PreferoError(f"{none}, and training.metric_for_best_model is one of samples")
        _say(args, none)
    if judge is not None and len(prompts) < settings.prompts:
        _say(
            args,
            f"samples: there are {number_of(len(prompts), 'prompt')} of the {settings.prompts} asked for",
        )
    if judge is not None and prompts:
        chosen = [chosen_text(prompt) if isinstance(prompt, Example) else None for prompt in prompts]
        if settings.against == "chosen" and None in chosen:
            without = shown_prompt(prompts[chosen.index(None)])
            raise PreferoError(
                f"samples.against is chosen, but the prompt {without!r:.80} has no chosen response in the "
                "data: set samples.against=start"
            )
        with generators_kept():
            try_judge(judge, prompts[0], chosen[0])
    return prompts, options


def _refuse_metric(metric: str, args: PreferenceArguments, judge: Judging | None) -> None:
    """Raise :class:`PreferoError` for a metric of the best model that no samples of this run will give."""
    given = ["win_rate"] if isinstance(judge, BothOrders) else ["win_rate", "score"]
    reason = ""
    if judge is None:
        reason = "which a judge gives: set samples.judge"
    elif args.world_size > 1:
        reason = f"but samples are drawn in one process alone, and this run has {args.world_size}"
    elif metric.removeprefix("eval_").removeprefix(METRICS) not in given:
        reason = f"and this judge gives {' and '.join(METRICS + name for name in given)}"
    if reason:
        raise PreferoError(
            f"training.metric_for_best_model is {metric}, {reason}; or choose by another metric"
        )


def _say(args: PreferenceArguments, note: str) -> None:
    if args.process_index == 0:
        print(note, file=sys.stderr)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave every global generator of random numbers as it was."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def shown_prompt(prompt: Any) -> str:
    """A prompt of a kind of model, or that of an example, as a reader sees it."""
    if not isinstance(prompt, Example):
        return str(prompt)
    images, asked = prompt.images.get("", ()), prompt.prompt
    turns = (asked,) if isinstance(asked, str) else tuple(map(_turn_shown, asked))
    return "\n\n".join((f"[{len(images)} images]", *turns) if images else turns)


def _turn_shown(turn: Message) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", f"[{part.get('type')}]") for part in content)
    return f"{turn.get('role')}: {content}"
