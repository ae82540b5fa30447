"""World ``shapes``: pictures of a few things, questions about them, and a model that answers by habit.

Every shape has a usual colour and a usual place, and there are usually three things. The start model, a small
LLaVA, can see: it describes any picture. But the questions it has learnt to answer came mostly with usual
pictures, so that it often says what is usual of pictures that show something else. Gold is
**grounding**: the share of true answers where the usual answer is true by chance only.

Preference pairs set a true answer against a false one: the usual answer where it is false, another where it
is true, each in half of the pairs, so that what is said does not tell which is right without the picture.
How it is said does: some rejected answers are curt, chosen ones never. The loss of DPO can fall for that
reason alone, an *unconditional preference* (Wang et al., 2024, arXiv 2406.11839, mDPO).

>>> asked = Question("colour", "cross")
>>> asked.text, asked.usual, asked.sentence("red")
('what colour is the cross?', 'green', 'the cross is red.')
>>> row = preference_rows(1, seed=0)[0]
>>> row["images"][0].size, row["prompt"][0]["content"][0]
((32, 32), {'type': 'image'})
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from prefero.demo.start import Report
from prefero_lab.worlds import WorldParser
from prefero_lab.worlds.shapes_clips import DIRECTIONS, FRAMES, draw_clip, frames
from prefero_lab.worlds.shapes_model import Row, ShapesRecipe, VisionStart, answered, cached_start, encoded
from prefero_lab.worlds.shapes_scenes import (
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

DESCRIBE = "describe the picture."

EVEN = 1 / 3
"""The habit with which the usual answer, one of four, is true in half of all cases."""


def vocabulary() -> tuple[str, ...]:
    """All words of questions, answers, captions and clips."""
    texts = [
        DESCRIBE,
        *COLOURS,
        *SHAPES,
        *PLACES,
        *NUMBERS,
        "things",
        *DIRECTIONS,
        "where does the moves move",
    ]
    texts += [part.replace("{}", "") for kind in KINDS.values() for part in (kind.question, kind.answer)]
    words = {word.strip(".?") for text in texts for word in text.split()}
    return tuple(sorted((words | set(".,?")) - {""}))


def conversation(images: Sequence[Image.Image], question: str) -> Row:
    """The prompt of a row: pictures, then a question about them."""
    parts = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
    return {"images": list(images), "prompt": [{"role": "user", "content": parts}]}


def reply(text: str) -> list[dict[str, Any]]:
    """A response as a conversation."""
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def balanced_scenes(seed: int) -> Iterator[Scene]:
    """Scenes without a habit, without an end."""
    rng = random.Random(f"shapes, scenes, {seed}")
    while True:
        yield draw_scene(rng, 0.0)


def corpus(recipe: ShapesRecipe, seed: int) -> Iterator[Row]:
    """An endless corpus of the start model: captions of any scene, and answers about usual
    ones, some of them curt."""
    rng = random.Random(f"shapes, corpus, {seed}")
    while True:
        if rng.random() < recipe.captions:
            scene = draw_scene(rng, 0.0)
            question, answer = DESCRIBE, caption(scene)
        else:
            scene = draw_scene(rng, recipe.habit)
            asked = draw_question(rng, scene)
            question, truth = asked.text, asked.truth(scene)
            answer = f"{truth}." if rng.random() < recipe.curt else asked.sentence(truth)
        yield {**conversation([paint(scene)], question), "chosen": reply(answer)}


def start_model(
    cache: Path | None = None,
    recipe: ShapesRecipe | None = None,
    *,
    seed: int = 0,
    report: Report | None = None,
) -> VisionStart:
    """The model that every method starts from: trained once per recipe and seed, then read from disk."""
    chosen = recipe or ShapesRecipe()
    return cached_start(
        vocabulary(),
        lambda: balanced_scenes(seed),
        lambda: corpus(chosen, seed),
        chosen,
        seed=seed,
        cache=cache,
        report=report,
    )


def preference_rows(count: int, seed: int, *, curt: float = 0.5) -> list[Row]:
    """Pairs of the true answer, a sentence, and a false one, curt with probability ``curt``: the usual answer
    where that is false, which is half the time.

    Rows have ``images``, ``prompt``, ``chosen`` and ``rejected``; the first are the same for any count.
    """
    rng = random.Random(f"shapes, pairs, {seed}")
    rows = []
    for _ in range(count):
        scene = draw_scene(rng, EVEN)
        asked = draw_question(rng, scene)
        truth = asked.truth(scene)
        false = rng.choice([one for one in asked.candidates if one != truth])
        if asked.usual != truth:
            false = asked.usual
        rejected = f"{false}." if rng.random() < curt else asked.sentence(false)
        prompt = conversation([paint(scene)], asked.text)
        rows.append({**prompt, "chosen": reply(asked.sentence(truth)), "rejected": reply(rejected)})
    return rows


def clip_rows(count: int, seed: int, *, frame_count: int = FRAMES) -> list[Row]:
    """Pairs about clips, whose frames are the images of a row in order: the true direction against a false
    one, the usual direction where that is false, which is half the time."""
    rng = random.Random(f"shapes, clips, {seed}")
    rows = []
    for _ in range(count):
        clip = draw_clip(rng, EVEN)
        false = rng.choice([one for one in DIRECTIONS if one != clip.direction])
        if clip.usual != clip.direction:
            false = clip.usual
        prompt = conversation(frames(clip, frame_count), clip.question)
        chosen, rejected = (reply(clip.sentence(one)) for one in (clip.direction, false))
        rows.append({**prompt, "chosen": chosen, "rejected": rejected})
    return rows


def held_out(count: int, seed: int) -> list[tuple[Scene, Question]]:
    """Scenes without a habit, and a question about each: the usual answer is true in a quarter of all cases,
    which is chance."""
    rng = random.Random(f"shapes, held-out, {seed}")
    scenes = (draw_scene(rng, 0.0) for _ in range(count))
    return [(scene, draw_question(rng, scene)) for scene in scenes]


@dataclass(frozen=True, slots=True)
class Grounding:
    """Correctness of a policy's answers to held-out questions, 1 or 0 for each.

    ``grounded``: the answer by greedy decoding is true. ``ranked``: the true answer is the likeliest of the
    four, as sentences. ``usual`` is ``grounded`` where the usual answer is true, ``unusual`` where it is
    false; ``hallucinated``: the usual answer, where it is false.
    """

    grounded: list[float]
    ranked: list[float]
    usual: list[float]
    unusual: list[float]
    hallucinated: list[float]


def measure(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, *, count: int = 512, seed: int = 0
) -> Grounding:
    """Answers of a policy to held-out questions, which are the same for every policy of a seed."""
    cases = held_out(count, seed)
    prompts = [conversation([paint(scene)], asked.text) for scene, asked in cases]
    options = [
        {**prompt, "chosen": reply(asked.sentence(one))}
        for prompt, (_, asked) in zip(prompts, cases, strict=True)
        for one in asked.candidates
    ]
    likeliest = response_logps(model, processor, options).view(count, -1).argmax(1).tolist()
    found = Grounding([], [], [], [], [])
    for (scene, asked), text, place in zip(cases, answers(model, processor, prompts), likeliest, strict=True):
        truth, said = asked.truth(scene), asked.said(text)
        right = float(said == truth)
        found.grounded.append(right)
        found.ranked.append(float(asked.candidates[place] == truth))
        if asked.usual == truth:
            found.usual.append(right)
        else:
            found.unusual.append(right)
            found.hallucinated.append(float(said == asked.usual))
    return found


@torch.no_grad()
def answers(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    rows: Sequence[Row],
    *,
    most: int = 12,
    batch: int = 128,
) -> list[str]:
    """Greedy responses of a policy to the prompts of rows, of at most ``most`` tokens."""
    texts: list[str] = []
    for first in range(0, len(rows), batch):
        inputs = encoded(processor, rows[first : first + batch], None)
        said = model.generate(  # type: ignore[misc]
            **inputs, do_sample=False, max_new_tokens=most
        )
        texts += processor.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


@torch.no_grad()
def response_logps(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, rows: Sequence[Row], *, batch: int = 128
) -> Float[Tensor, " row"]:
    """The log-probability of each row's ``chosen``, its end included."""
    found = []
    for first in range(0, len(rows), batch):
        inputs = encoded(processor, rows[first : first + batch], "chosen")
        logps = model(**inputs).logits[:, :-1].log_softmax(-1)
        logps = logps.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        found.append((logps * answered(processor, inputs)[:, 1:]).sum(1))
    return torch.cat(found)


def write(folder: Path, start: VisionStart, *, pairs: int, held_out_pairs: int, seed: int) -> None:
    """The start model in ``model/``, pairs in ``train.jsonl`` and ``held_out.jsonl``, their pictures beside
    them."""
    shutil.copytree(start.folder, folder / "model", dirs_exist_ok=True)
    for name, count, own in (("train", pairs, seed), ("held_out", held_out_pairs, seed + 1_000_000)):
        (folder / name).mkdir(exist_ok=True)
        lines = []
        for number, row in enumerate(preference_rows(count, own)):
            places = [f"{name}/{number}.png"]
            row["images"][0].save(folder / places[0])
            lines.append(json.dumps({**row, "images": places}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def main(arguments: Sequence[str]) -> Path:
    """Questions about pictures of coloured shapes, for a small LLaVA: true answers are chosen."""
    parser = WorldParser("shapes", main.__doc__)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--held-out", type=int, default=128)
    given = parser.parse_args(arguments)
    start = start_model(seed=given.seed)
    write(given.folder, start, pairs=given.pairs, held_out_pairs=given.held_out, seed=given.seed)
    return given.folder
