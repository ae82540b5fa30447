from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from prefero.cli.recipe import read_recipe
from prefero.errors import PreferoError
from prefero.training.run import train
from prefero_lab.worlds.shapes import (
    DESCRIBE,
    ShapesRecipe,
    answers,
    clip_rows,
    conversation,
    corpus,
    held_out,
    measure,
    preference_rows,
    reply,
    response_logps,
    start_model,
    vocabulary,
    write,
)
from prefero_lab.worlds.shapes_clips import DIRECTIONS, Clip, draw_clip, frames
from prefero_lab.worlds.shapes_model import VisionStart, answered, encoded, make_processor
from prefero_lab.worlds.shapes_scenes import (
    COLOURS,
    KINDS,
    NUMBERS,
    PLACES,
    SHAPES,
    SIZE,
    Question,
    Scene,
    Thing,
    caption,
    draw_question,
    draw_scene,
    paint,
    quarters,
)

SMALL = ShapesRecipe(hidden=16, layers=1, heads=2, intermediate=32, seeing_steps=2, steps=3, batch=4)
SCENE = Scene((Thing("cross", "red", "top right"), Thing("circle", "blue", "bottom left")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


@pytest.fixture(scope="module")
def small(folder: Path) -> VisionStart:
    return start_model(folder, SMALL)


def text_of(message: list[dict]) -> str:
    return " ".join(part["text"] for part in message[0]["content"] if part["type"] == "text")


# What is asked and answered


@pytest.mark.parametrize(
    ("kind", "about", "truth", "usual", "sentence"),
    [
        ("colour", "cross", "red", "green", "the cross is red."),
        ("place", "circle", "bottom left", "top left", "the circle is at the bottom left."),
        ("shape", "top right", "cross", "square", "at the top right is a cross."),
        ("number", "things", "two", "three", "the number of things is two."),
    ],
)
def test_the_true_and_the_usual_answer_by_hand(kind, about, truth, usual, sentence) -> None:
    asked = Question(kind, about)
    assert asked.truth(SCENE) == truth and asked.usual == usual
    assert asked.sentence(truth) == sentence
    assert asked.said(sentence) == truth and asked.said(f"{truth}.") == truth


def test_an_answer_counts_only_if_it_is_the_only_one() -> None:
    asked = Question("colour", "cross")
    assert asked.said("the cross is red. the cross is blue.") is None
    assert asked.said("the cross is.") is None
    assert Question("place", "cross").said("at the top.") is None
    assert Question("place", "cross").said("top left, or bottom right.") is None


def test_a_question_about_nothing_in_the_scene_is_an_error() -> None:
    with pytest.raises(PreferoError, match="about nothing"):
        Question("colour", "triangle").truth(SCENE)


def test_captions_are_in_the_order_of_places() -> None:
    assert caption(SCENE) == "red cross top right, blue circle bottom left."


def test_without_a_habit_all_answers_are_alike_and_with_one_they_are_usual() -> None:
    rng = random.Random(0)

    def truths(habit: float) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        for _ in range(3000):
            scene = draw_scene(rng, habit)
            asked = draw_question(rng, scene)
            found[asked.kind][asked.truth(scene)] += 1
            found[asked.kind]["usual"] += asked.truth(scene) == asked.usual
        return found

    for kind, counts in truths(0.0).items():
        total = sum(counts[one] for one in KINDS[kind].candidates)
        for one in (*KINDS[kind].candidates, "usual"):
            assert counts[one] / total == pytest.approx(0.25, abs=0.07), (kind, one)
    for kind, counts in truths(1.0).items():
        assert counts["usual"] == sum(counts[one] for one in KINDS[kind].candidates)


# Pictures


def test_a_picture_shows_each_thing_in_its_colour_at_its_place() -> None:
    pixels = np.asarray(paint(SCENE)).astype(int)
    assert pixels.shape == (SIZE, SIZE, 3)
    half = SIZE // 2
    for place, colour in (("top right", "red"), ("bottom left", "blue")):
        row, column = divmod(PLACES.index(place), 2)
        middle = pixels[row * half + 6 : row * half + 10, column * half + 6 : column * half + 10]
        assert np.abs(middle.mean((0, 1)) - COLOURS[colour]).max() < 20
    assert pixels[:half, :half].mean() < 40 and pixels[half:, half:].mean() < 40


def test_shapes_differ_and_stay_in_their_quarter() -> None:
    covered = {}
    for shape in SHAPES:
        pictures = [
            np.asarray(paint(Scene((Thing(shape, "yellow", "top left", shift),))))[..., 0] > 128
            for shift in ((0, 0), (1, 1), (-1, -1))
        ]
        for picture in pictures:
            assert picture[:16, :16].sum() == picture.sum() > 40
        covered[shape] = pictures[0]
    for one in SHAPES:
        for other in SHAPES:
            assert one == other or (covered[one] != covered[other]).sum() > 20


def test_quarters_number_what_stands_where() -> None:
    assert quarters(SCENE) == [(0, 0), (4, 1), (1, 2), (0, 0)]


# Rows


def test_rows_are_the_layout_of_conversations_with_images() -> None:
    row = preference_rows(1, seed=3)[0]
    assert list(row) == ["images", "prompt", "chosen", "rejected"]
    assert len(row["images"]) == 1 and isinstance(row["images"][0], Image.Image)
    (turn,) = row["prompt"]
    assert turn["role"] == "user" and [part["type"] for part in turn["content"]] == ["image", "text"]
    assert row["chosen"][0]["role"] == row["rejected"][0]["role"] == "assistant"


def test_rows_are_decided_by_their_seed() -> None:
    def content(seed: int) -> list:
        rows = preference_rows(8, seed)
        return [(row["images"][0].tobytes(), json.dumps([row["prompt"], row["chosen"]])) for row in rows]

    assert content(1) == content(1) and content(1) != content(2)
    assert content(1)[:4] == [*content(1)][:4]
    longer = preference_rows(12, 1)
    assert [text_of(row["chosen"]) for row in longer[:8]] == [
        text_of(row["chosen"]) for row in preference_rows(8, 1)
    ]


def test_what_pairs_say_does_not_tell_which_is_right_but_how_they_say_it_does() -> None:
    usual, curt = Counter[str](), Counter[bool]()
    for row in preference_rows(2000, seed=0):
        question = text_of(row["prompt"])
        asked = next(
            one
            for kind, about in ((kind, about) for kind in KINDS for about in (*SHAPES, *PLACES, "things"))
            if about in KINDS[kind].usual and (one := Question(kind, about)).text == question
        )
        chosen, rejected = text_of(row["chosen"]), text_of(row["rejected"])
        assert asked.said(chosen) != asked.said(rejected)
        assert chosen == asked.sentence(str(asked.said(chosen)))
        usual["chosen"] += asked.said(chosen) == asked.usual
        usual["rejected"] += asked.said(rejected) == asked.usual
        curt[rejected == f"{asked.said(rejected)}."] += 1
    assert usual["chosen"] + usual["rejected"] == 2000
    assert usual["chosen"] / 2000 == pytest.approx(0.5, abs=0.05)
    assert curt[True] / 2000 == pytest.approx(0.5, abs=0.05)
    sentences = preference_rows(50, seed=0, curt=0.0)
    assert all(len(text_of(row["rejected"]).split()) > 2 for row in sentences)


def test_the_start_corpus_has_captions_without_and_questions_with_a_habit() -> None:
    rows = [row for row, _ in zip(corpus(ShapesRecipe(habit=1.0), 0), range(300), strict=False)]
    captions = [row for row in rows if text_of(row["prompt"]) == DESCRIBE]
    assert len(captions) / len(rows) == pytest.approx(ShapesRecipe().captions, abs=0.1)
    said = " ".join(text_of(row["chosen"]) for row in captions)
    assert all(f"{colour} {shape}" in said for colour in COLOURS for shape in SHAPES)
    colours = [text_of(r["chosen"]) for r in rows if text_of(r["prompt"]) == "what colour is the circle?"]
    assert colours and all("red" in one for one in colours)
    assert {one == "red." for one in colours} == {True, False}


def test_a_clip_is_frames_in_an_order_that_tells_the_direction() -> None:
    for direction, (down, right) in DIRECTIONS.items():
        centres = []
        for picture in frames(Clip("square", "yellow", direction)):
            covered = np.argwhere(np.asarray(picture)[..., 0] > 128)
            centres.append(covered.mean(0))
        moved = centres[-1] - centres[0]
        assert moved == pytest.approx([14 * down, 14 * right], abs=1)
        assert all(np.dot(b - a, (down, right)) > 3 for a, b in itertools.pairwise(centres))


def test_clips_backwards_are_clips_of_the_opposite_direction() -> None:
    there = [np.asarray(one) > 128 for one in frames(Clip("circle", "yellow", "left"))]
    back = [np.asarray(one) > 128 for one in frames(Clip("circle", "yellow", "right"))]
    assert all((a == b).all() for a, b in zip(there, reversed(back), strict=True))


def test_things_in_clips_stay_on_the_canvas() -> None:
    rng = random.Random(0)
    for _ in range(50):
        areas = [(np.asarray(one).max(-1) > 100).sum() for one in frames(draw_clip(rng, 0.5))]
        assert max(areas) - min(areas) < 25


def test_rows_of_clips_have_a_part_for_every_frame() -> None:
    for row in clip_rows(5, seed=0, frame_count=3):
        assert len(row["images"]) == 3
        kinds = [part["type"] for part in row["prompt"][0]["content"]]
        assert kinds == ["image"] * 3 + ["text"]
        chosen, rejected = text_of(row["chosen"]), text_of(row["rejected"])
        assert chosen != rejected and chosen.rsplit(" ", 1)[0] == rejected.rsplit(" ", 1)[0]


# Models


def test_every_word_is_one_known_token_and_comes_back(small: VisionStart) -> None:
    tokenizer = small.processor.tokenizer
    texts = [text_of(row["chosen"]) for row, _ in zip(corpus(ShapesRecipe(), 0), range(50), strict=False)]
    texts += [text_of(row[field]) for row in clip_rows(20, seed=0) for field in ("prompt", "chosen")]
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text
    assert len(set(vocabulary())) == len(vocabulary())


def test_the_template_puts_the_response_behind_the_prompt(small: VisionStart) -> None:
    processor = small.processor
    row = {**conversation([paint(SCENE)], "where is the cross?"), "chosen": reply("top right.")}
    prompt = processor.apply_chat_template(row["prompt"], add_generation_prompt=True)
    whole = processor.apply_chat_template([*row["prompt"], *row["chosen"]])
    assert prompt == "<s>USER <image> where is the cross? ASSISTANT "
    assert whole == f"{prompt}top right.</s>"
    plain = [{"role": "user", "content": "where is the cross?"}, {"role": "assistant", "content": "top."}]
    assert processor.apply_chat_template(plain) == "<s>USER where is the cross? ASSISTANT top.</s>"
    inputs = encoded(processor, [row], "chosen")
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 16
    scored = inputs["input_ids"][answered(processor, inputs)]
    assert processor.tokenizer.convert_ids_to_tokens(scored) == ["top", "right", ".", "</s>"]


def test_a_start_model_is_trained_once_and_then_read_with_its_processor(
    small: VisionStart, folder: Path
) -> None:
    again = start_model(folder, SMALL, report=lambda *_: pytest.fail("trained a second time"))
    assert isinstance(again.model, LlavaForConditionalGeneration)
    assert isinstance(AutoProcessor.from_pretrained(small.folder), LlavaProcessor)
    for one, other in zip(small.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    made = make_processor(vocabulary(), SMALL)
    row = preference_rows(1, 0)[0]
    for key, value in encoded(made, [row], "chosen").items():
        assert torch.equal(value, encoded(again.processor, [row], "chosen")[key])
    assert not again.model.training and list(folder.iterdir()) == [small.folder]


def test_another_recipe_or_seed_is_another_entry(small: VisionStart, tmp_path: Path) -> None:
    one, other = start_model(tmp_path, SMALL, seed=1), start_model(tmp_path, replace(SMALL, habit=0.5))
    assert len({one.folder.name, other.folder.name, small.folder.name}) == 3


def test_training_is_decided_by_the_seed_alone(small: VisionStart, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again = start_model(tmp_path, SMALL)
    assert torch.equal(state, torch.get_rng_state())
    assert again.folder.name == small.folder.name
    for one, other in zip(small.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_log_probabilities_do_not_depend_on_padding(small: VisionStart) -> None:
    rows = [
        {**conversation([paint(SCENE)], "where is the cross?"), "chosen": reply("top right.")},
        {**conversation([paint(SCENE)], DESCRIBE), "chosen": reply(caption(SCENE))},
    ]
    together = response_logps(small.model, small.processor, rows)
    apart = torch.cat([response_logps(small.model, small.processor, [row]) for row in rows])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_the_picture_reaches_the_answer(small: VisionStart) -> None:
    other = Scene((Thing("square", "green", "top left"), Thing("cross", "yellow", "bottom right")))
    rows = [
        {**conversation([paint(scene)], DESCRIBE), "chosen": reply("red cross.")} for scene in (SCENE, other)
    ]
    one, two = response_logps(small.model, small.processor, rows)
    assert abs(one - two) > 1e-5


def test_clips_are_answered_too(small: VisionStart) -> None:
    rows = clip_rows(3, seed=0)
    assert len(answers(small.model, small.processor, rows)) == 3
    assert response_logps(small.model, small.processor, rows).isfinite().all()


def test_measurements_are_on_the_same_questions_each_time(small: VisionStart) -> None:
    first, second = (measure(small.model, small.processor, count=24, seed=1) for _ in range(2))
    assert first == second and len(first.grounded) == len(first.ranked) == 24
    assert len(first.usual) + len(first.unusual) == 24
    assert sum(first.usual) + sum(first.unusual) == sum(first.grounded)
    assert len(first.hallucinated) == len(first.unusual)
    assert held_out(5, 0) == held_out(5, 0) != held_out(5, 1)


def test_who_never_looks_is_right_by_chance() -> None:
    cases = held_out(2000, 0)
    right = sum(asked.usual == asked.truth(scene) for scene, asked in cases)
    assert right / 2000 == pytest.approx(0.25, abs=0.03)


def test_numbers_are_up_to_four() -> None:
    assert len(NUMBERS) == len(PLACES) == len(SHAPES)


def test_what_is_written_is_what_the_recipe_trains_on(
    small: VisionStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_recipe(Path("recipes/vision_language.yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "runs" / "shapes", small, pairs=8, held_out_pairs=4, seed=0)
    assert len((tmp_path / "runs/shapes/train.jsonl").read_text().splitlines()) == 8
    recipe["training"] |= {"num_train_epochs": 1, "examples_per_step": 4, "use_cpu": True}
    recipe["samples"] = 2
    folder = train(recipe)
    assert (folder / "model").is_dir()
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert next(line["loss"] for line in logged if "loss" in line) == pytest.approx(3 * np.log(2), abs=1e-4)


@pytest.mark.slow
def test_the_start_model_can_see_and_still_answers_by_habit() -> None:
    start = start_model()
    scenes = [scene for scene, _ in held_out(200, 0)]
    rows = [conversation([paint(scene)], DESCRIBE) for scene in scenes]
    told = answers(start.model, start.processor, rows, most=24)
    assert sum(one == caption(scene) for one, scene in zip(told, scenes, strict=True)) / 200 > 0.9
    found = measure(start.model, start.processor)
    assert sum(found.usual) / len(found.usual) > 0.85
    assert sum(found.hallucinated) / len(found.hallucinated) > 0.2
