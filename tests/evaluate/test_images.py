"""Models that draw images, measured by judges of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefero.errors import PreferoError
from prefero.evaluate import BothOrders, Prompt, RewardModel, Sampling, evaluate, read_prompts
from prefero.evaluate.difficulties import Difficulties
from prefero.evaluate.functions import ByComparison, ByFunction, ByLists
from prefero.evaluate.intervals import wilson
from prefero.evaluate.judgements import read_judgements, write_judgements
from prefero.evaluate.policies import opened_models
from prefero.evaluate.summaries import summaries
from prefero.models.diffusion.kind import Diffusion
from prefero.training.run import train
from tests.data.test_image_prompts import row
from tests.models.diffusion.pipelines import diffusion, pixel_unet
from tests.models.diffusion.test_kind import recipe
from tests.models.discrete_diffusion.test_kind import bert, tokenizer as masked_tokenizer
from tests.models.encoder_decoder.families import T5, build
from tests.training.tiny import saved_model, tiny_tokenizer
from tests.vision import PROCESSORS, image, vision_model


def denoiser(folder: Path, seed: int = 0) -> str:
    """A model of grey images of 8 × 8 pixels with five classes."""
    pixel_unet(seed=seed).save_pretrained(folder)
    diffusion().save_pretrained(folder)
    return str(folder)


def rows(count: int = 4) -> list[dict[str, Any]]:
    def grey(value: int) -> Image.Image:
        return Image.new("L", (16, 8), value)

    return [{"class": n, "chosen": grey(40 * n), "rejected": grey(255)} for n in range(count)]


def brightness(prompt: str, image: Image.Image) -> float:
    return float(np.asarray(image).mean())


BRIGHTNESS = ByFunction(brightness)


def brighter(prompt: str, first: Image.Image, second: Image.Image) -> float:
    """Likes the first place, which asking in both orders undoes."""
    ours, theirs = brightness(prompt, first), brightness(prompt, second)
    return 0.6 + 0.4 * float(ours > theirs) - 0.4 * float(ours < theirs)


def test_images_are_judged_against_the_chosen_ones_of_the_data(tmp_path: Path) -> None:
    model = denoiser(tmp_path / "model")
    seen: list[Image.Image] = []

    def judge(prompt: str, image: Image.Image) -> float:
        seen.append(image)
        return brightness(prompt, image)

    prompts = read_prompts(rows(), 3)
    result = evaluate({"m": model}, prompts, ByFunction(judge), sampling=Sampling(count=2))
    (row,) = result.rows
    assert {image.size for image in seen} == {(8, 8)} and len(seen) == 12
    assert row["wins"] + row["ties"] + row["losses"] == 6
    assert row["score"] == pytest.approx(np.mean([brightness("", image) for image in seen[6:]]))
    assert row["interval"]["win_rate"][0] <= row["win_rate"] <= row["interval"]["win_rate"][1]
    # nothing of texts, not even as 0
    assert set(row) == {"method", "win_rate", "score", "wins", "ties", "losses", "interval"}
    assert result.notes == (
        f"{model}: responses are drawn in 20 steps, 8 × 8 pixels, with the same noise each time",
    )
    for each, preference in zip(result.judgements, row["wins"] * [1] + row["losses"] * [0], strict=False):
        assert each.length is None and isinstance(each.response, Image.Image)
        assert preference in (0, 1)


def test_models_share_their_noise_and_the_baseline_has_its_own(tmp_path: Path) -> None:
    first, second = denoiser(tmp_path / "a"), denoiser(tmp_path / "b")  # the same weights
    result = evaluate(
        {"a": first, "b": second}, read_prompts(rows(), 4), BothOrders(ByComparison(brighter)), baseline=first
    )
    a, b = ([each for each in result.judgements if each.model == name] for name in "ab")
    for ours, theirs in zip(a, b, strict=True):
        assert ours.response.tobytes() == theirs.response.tobytes()  # type: ignore[union-attr]
        assert ours.response.tobytes() != ours.baseline.tobytes()  # type: ignore[union-attr]
    assert result.rows[0]["win_rate"] == result.rows[1]["win_rate"]
    assert all(each.preference in (0.1, 0.5, 0.9) or each.preference == pytest.approx(0.9) for each in a)
    # and the same command draws the same
    again = evaluate(
        {"a": first}, read_prompts(rows(), 4), BothOrders(ByComparison(brighter)), baseline=first
    )
    assert [each.preference for each in again.judgements] == [each.preference for each in a]


def test_the_noise_of_an_image_is_that_of_its_place_however_many_are_drawn() -> None:
    kind = Diffusion.of(model := pixel_unet(), diffusion(), {"sample_steps": 2})
    every = kind.respond(model, ["1"] * 5, seed=3, count=2)  # more than are drawn at once
    for place in (0, 1, 9):
        (alone,) = kind.respond(model, ["1"], seed=3 + place)
        difference = np.asarray(every[place].content, float) - np.asarray(alone.content, float)
        assert np.abs(difference).max() <= 1
    assert len({each.content.tobytes() for each in every}) == 10  # type: ignore[union-attr]


def test_a_judge_may_change_its_images_and_nothing_else_does(tmp_path: Path) -> None:
    model = denoiser(tmp_path / "model")

    def blackens(prompt: str, image: Image.Image) -> float:
        score = brightness(prompt, image)
        image.paste(0, (0, 0, 8, 8))
        return score

    def blackens_both(prompt: str, first: Image.Image, second: Image.Image) -> float:
        return (1 + np.sign(blackens(prompt, first) - blackens(prompt, second))) / 2

    def blackens_all(prompts: list[str], completions: list[Image.Image]) -> list[float]:
        return [blackens("", image) for image in completions]

    prompts = read_prompts(rows(), 3)
    plain = evaluate({"a": model, "b": model}, prompts, BRIGHTNESS)
    judges: tuple[Any, ...] = (
        ByFunction(blackens), BothOrders(ByComparison(blackens_both)), ByLists(blackens_all, True)
    )  # fmt: skip
    for judge in judges:
        result = evaluate({"a": model, "b": model}, prompts, judge)
        assert [row["win_rate"] for row in result.rows] == [row["win_rate"] for row in plain.rows]
        for ours, theirs in zip(result.judgements, plain.judgements, strict=True):
            assert ours.response.tobytes() == theirs.response.tobytes()  # type: ignore[union-attr]
            assert ours.baseline.tobytes() == theirs.baseline.tobytes()  # type: ignore[union-attr]


def test_images_of_different_sizes_are_said(tmp_path: Path) -> None:
    small, large = denoiser(tmp_path / "small"), str(tmp_path / "large")
    network = pixel_unet()
    network.register_to_config(sample_size=16)
    network.save_pretrained(large)
    diffusion().save_pretrained(large)
    result = evaluate({"s": small, "l": large}, read_prompts(rows(), 2), BRIGHTNESS)
    assert "the judge compared images of different sizes, in pixels: 8 × 8, 16 × 16" in result.notes


def test_equal_scores_are_ties_and_count_half(tmp_path: Path) -> None:
    model = denoiser(tmp_path / "model")
    for judge in (
        ByFunction(lambda prompt, image: 1.0),
        ByLists(lambda prompts, completions: [1.0 for _ in completions], True),
        BothOrders(ByComparison(lambda prompt, first, second: 0.5)),
    ):
        (row,) = evaluate({"m": model}, read_prompts(rows(), 3), judge).rows
        assert (row["win_rate"], row["wins"], row["ties"], row["losses"]) == (0.5, 0, 3, 0)


def test_images_are_written_once_and_read_as_no_texts(tmp_path: Path) -> None:
    model = denoiser(tmp_path / "model")
    judged = evaluate(
        {"one/two": model, "three": model}, read_prompts(rows(), 2), ByFunction(brightness)
    ).judgements
    write_judgements(tmp_path, judged)
    lines = [json.loads(line) for line in (tmp_path / "judgements.jsonl").read_text().splitlines()]
    files = sorted((tmp_path / "images").iterdir())
    assert len(files) == 6  # two of each model, two chosen ones
    assert {file.suffix for file in files} == {".png"}
    for line, each in zip(lines, judged, strict=True):
        with Image.open(tmp_path / line["image"]) as image:
            assert image.tobytes() == each.response.tobytes()  # type: ignore[union-attr]
        assert line["baseline_image"].endswith("-baseline.png")
        assert not {"response", "baseline", "length"} & set(line)
    read = read_judgements(tmp_path / "judgements.jsonl")
    assert {(each.length, each.response) for each in read} == {(None, None)}
    assert [each.preference for each in read] == [each.preference for each in judged]


def test_what_does_not_fit_images_is_refused_before_any_is_drawn(tmp_path: Path) -> None:
    model, text = denoiser(tmp_path / "model"), saved_model(tmp_path / "text")
    stages: list[str] = []

    def refused(match: str, *models: str, judge: Any = BRIGHTNESS, **options: Any) -> None:
        prompts = options.pop("prompts", read_prompts(rows(), 2))
        with pytest.raises(PreferoError, match=match):
            evaluate(
                {str(n): one for n, one in enumerate(models)}, prompts, judge,
                report=stages.append, **options,
            )  # fmt: skip
        assert not [stage for stage in stages if stage.startswith("responses of 0")]

    refused("draws images, and .*text writes texts: no judge compares the two", model, text)
    refused("the judge is a reward model, which reads texts", model, judge=RewardModel(None, None))
    refused("--template is none, but the models draw images", model, template="none")
    refused("--max-length is 5, but", model, max_length=5)
    refused("--difficulties control the length of texts", model, difficulties=Difficulties({}, ("a",)))
    refused("settings of text", model, sampling=Sampling(max_new_tokens=3), baseline=model)
    refused("is of the tokens of language models", model, reference=model)
    refused("raised AttributeError", model, judge=ByFunction(lambda p, r: len(r.strip())))
    refused("some prompts have no chosen response", model, prompts=[Prompt("1")])
    refused("chosen response of a prompt in the data is a text", model, prompts=[Prompt("1", "a")])
    refused(
        "the response is an image, which a language model does not write",
        text,
        judge=ByFunction(lambda p, r: 0.0),
    )


@pytest.mark.parametrize("adapters", [False, True])
def test_the_trained_denoiser_of_a_run_is_what_draws(tmp_path: Path, adapters: bool) -> None:
    config = recipe(tmp_path, **({"lora": {"r": 2}} if adapters else {}))
    config["training"] |= {"learning_rate": 0.05, "warmup_steps": 0}
    run = train(config)
    start = str(tmp_path / "model")
    opened, notes = opened_models([str(run), start])
    told = "responses are drawn in 2 steps, 16 × 16 pixels, with the same noise each time"
    assert notes == [f"{run}: {told}", f"{start}: {told}"]  # a model that is no run has the run's options
    images = [one.kind.respond(one.load(), ["a red cat"], seed=0)[0].content for one in opened.values()]
    assert {image.size for image in images} == {(16, 16)}  # type: ignore[union-attr]
    assert images[0].tobytes() != images[1].tobytes()  # type: ignore[union-attr]
    result = evaluate(
        {"run": str(run)}, read_prompts(str(tmp_path / "train.jsonl"), 2, split="train"),
        ByFunction(brightness), baseline=start, reference=start,
    )  # fmt: skip
    assert "kl" not in result.rows[0]


def test_text_of_masked_models_is_judged(tmp_path: Path) -> None:
    folder = str(tmp_path / "masked")
    bert().save_pretrained(folder)
    masked_tokenizer().save_pretrained(folder)
    result = evaluate(
        {"masked": folder}, [Prompt("a b", "c"), Prompt("b", "a")],
        ByFunction(lambda prompt, text: float(len(text))), sampling=Sampling(max_new_tokens=4, count=2),
    )  # fmt: skip
    (row,) = result.rows
    assert all(isinstance(each.response, str) for each in result.judgements)
    assert "length" not in row and "characters" in row
    with pytest.raises(PreferoError, match=r"temperature is 0.5, but a model of kind discrete_diffusion"):
        evaluate(
            {"masked": folder}, [Prompt("a b", "c")], ByFunction(lambda prompt, text: 0.0),
            sampling=Sampling(max_new_tokens=4, temperature=0.5),
        )  # fmt: skip


def test_a_canvas_is_as_long_as_its_responses(tmp_path: Path) -> None:
    from prefero.models.discrete_diffusion.kind import DiscreteDiffusion

    kind = DiscreteDiffusion.of(bert(), masked_tokenizer(), {"canvas": 6})
    assert kind.longest_response(None) == kind.longest_response(6) == 6
    with pytest.raises(PreferoError, match="fill a canvas of 6: leave --max-new-tokens out"):
        kind.respond(bert(), ["a"], seed=0, max_new_tokens=4)


def test_models_that_see_images_or_read_prompts_apart_answer_too(tmp_path: Path) -> None:
    processor = PROCESSORS["llava"]()
    vision_model("llava", processor).save_pretrained(tmp_path / "sees")
    processor.save_pretrained(tmp_path / "sees")
    build("t5", vocab_size=30, **T5).save_pretrained(tmp_path / "apart")
    tiny_tokenizer().save_pretrained(tmp_path / "apart")
    length = ByFunction(lambda prompt, text: float(len(text)))
    sampling = Sampling(max_new_tokens=3)
    seen = read_prompts([row(image(n)) for n in range(12)], 12)
    for name, prompts in (("sees", seen), ("apart", [Prompt("a b", "c"), Prompt("b", "a")])):
        (measured,) = evaluate({name: str(tmp_path / name)}, prompts, length, sampling=sampling).rows
        assert 0 < measured["length"] <= 3 and "kl" not in measured
    # one question about twelve images is twelve prompts
    both = {name: str(tmp_path / "sees") for name in "ab"}
    result = evaluate(both, seen, length, sampling=sampling)
    assert len({repr(prompt.text) for prompt in seen}) == 1 and len({prompt.beside for prompt in seen}) == 12
    assert "length_controlled_win_rate" in result.rows[0]
    interval = wilson(result.rows[0]["win_rate"], 12)
    assert result.rows[0]["interval"]["win_rate"] == [interval.low, interval.high]
    write_judgements(tmp_path, result.judgements)
    again, _ = summaries(read_judgements(tmp_path / "judgements.jsonl"))
    assert [one["interval"]["win_rate"] for one in again] == [
        one["interval"]["win_rate"] for one in result.rows
    ]
