"""World ``shapes``."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from prefero.evaluate.intervals import Mean, mean
from prefero.worlds.shapes_model import (
    Row,
    ShapesRecipe,
    VisionStart,
    answered,
    cached_start,
    encoded,
)
from prefero.worlds.shapes_scenes import (
    COLOURS,
    KINDS,
    NUMBERS,
    PLACES,
    SHAPES,
    Question,
    Scene,
    caption,
    draw_question,
    draw_scene,
    paint,
)
from prefero.worlds.start import Report

DESCRIBE = "describe the picture."


def vocabulary() -> tuple[str, ...]:
    """All words of questions and answers, one token each."""
    texts = [DESCRIBE, ",", *COLOURS, *SHAPES, *PLACES, *NUMBERS, "up down left right"]
    texts += [part for kind in KINDS.values() for part in (kind.question, kind.answer)]
    texts += ["things where does move moves to"]
    words = " ".join(texts).replace("{}", " ")
    for mark in ".,?":
        words = words.replace(mark, f" {mark} ")
    return tuple(sorted(set(words.split())))


def conversation(images: Sequence[object], question: str) -> Row:
    """The prompt of a row: pictures, then a question about them."""
    parts = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
    return {"images": list(images), "prompt": [{"role": "user", "content": parts}]}


def reply(text: str) -> list[dict[str, object]]:
    """A response as a conversation."""
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def corpus(recipe: ShapesRecipe, seed: int) -> Iterator[Row]:
    """What the start model learns from, without an end."""
    rng = random.Random(f"shapes corpus {seed}")
    while True:
        if rng.random() < recipe.captions:
            scene = draw_scene(rng, 0.0)
            question, answer = DESCRIBE, caption(scene)
        else:
            scene = draw_scene(rng, recipe.habit)
            asked = draw_question(rng, scene)
            truth = asked.truth(scene)
            question = asked.text
            answer = f"{truth}." if rng.random() < recipe.curt else asked.sentence(truth)
        yield {**conversation([paint(scene)], question), "chosen": reply(answer)}


def start_model(
    cache: Path | None = None,
    recipe: ShapesRecipe = ShapesRecipe(),
    *,
    seed: int = 0,
    report: Report | None = None,
) -> VisionStart:
    """The model that every method starts from: trained once per recipe and seed, then read from disk."""
    return cached_start(
        vocabulary(), lambda: corpus(recipe, seed), recipe, seed=seed, cache=cache, report=report
    )


def preference_rows(count: int, seed: int, *, wording: float = 0.5) -> list[Row]:
    """Pairs of the true answer and a false one."""
    rng = random.Random(f"shapes pairs {seed}")
    rows = []
    for _ in range(count):
        scene = draw_scene(rng, 1 / 3)
        asked = draw_question(rng, scene)
        truth = asked.truth(scene)
        others = [one for one in asked.candidates if one != truth]
        false = asked.usual if asked.usual != truth else rng.choice(others)
        rejected = f"{false}." if rng.random() < wording else asked.sentence(false)
        row = conversation([paint(scene)], asked.text)
        rows.append({**row, "chosen": reply(asked.sentence(truth)), "rejected": reply(rejected)})
    return rows


def held_out(count: int, seed: int) -> list[tuple[Scene, Question]]:
    """Scenes and questions whose usual answer is true in a quarter of all cases, which is chance."""
    rng = random.Random(f"shapes held-out {seed}")
    scenes = [draw_scene(rng, 0.0) for _ in range(count)]
    return [(scene, draw_question(rng, scene)) for scene in scenes]


@dataclass(frozen=True, slots=True)
class Grounding:
    """What a policy answers to held-out questions; shares of them."""

    grounded: Mean
    ranked: Mean
    usual: Mean
    unusual: Mean
    hallucinated: Mean


@torch.no_grad()
def measure(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, *, count: int = 512, seed: int = 0
) -> Grounding:
    """What a policy answers to held-out questions, the same for all policies."""
    cases = held_out(count, seed)
    rows = [conversation([paint(scene)], asked.text) for scene, asked in cases]
    said = [asked.said(text) for (_, asked), text in zip(cases, answers(model, processor, rows), strict=True)]
    options = [
        {**row, "chosen": reply(asked.sentence(one))}
        for row, (_, asked) in zip(rows, cases, strict=True)
        for one in asked.candidates
    ]
    best = response_logps(model, processor, options).view(count, -1).argmax(1).tolist()
    truths = [asked.truth(scene) for scene, asked in cases]
    right = [float(one == truth) for one, truth in zip(said, truths, strict=True)]
    usual = [asked.usual == truth for (_, asked), truth in zip(cases, truths, strict=True)]
    return Grounding(
        grounded=mean(right),
        ranked=mean(
            [
                float(asked.candidates[one] == truth)
                for (_, asked), one, truth in zip(cases, best, truths, strict=True)
            ]
        ),
        usual=mean([one for one, is_usual in zip(right, usual, strict=True) if is_usual]),
        unusual=mean([one for one, is_usual in zip(right, usual, strict=True) if not is_usual]),
        hallucinated=mean(
            [
                float(one == asked.usual)
                for (_, asked), one, is_usual in zip(cases, said, usual, strict=True)
                if not is_usual
            ]
        ),
    )


def answers(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, rows: Sequence[Row], batch: int = 128
) -> list[str]:
    """What a policy says by greedy decoding."""
    texts: list[str] = []
    for start in range(0, len(rows), batch):
        inputs = encoded(processor, rows[start : start + batch], None)
        told = model.generate(**inputs, do_sample=False, max_new_tokens=12)
        texts += processor.batch_decode(told[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


def response_logps(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, rows: Sequence[Row], batch: int = 128
) -> Tensor:
    """The log-probability of each row's ``chosen``, its end included."""
    sums = []
    for start in range(0, len(rows), batch):
        inputs = encoded(processor, rows[start : start + batch], "chosen")
        logps = model(**inputs).logits[:, :-1].log_softmax(-1)
        found = logps.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        sums.append((found * answered(processor, inputs)[:, 1:]).sum(1))
    return torch.cat(sums)
