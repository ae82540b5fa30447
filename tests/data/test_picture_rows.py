"""Rows whose responses are images are read from wherever they are kept; a bad one names its place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from prefero.data.arrange import arrange
from prefero.data.examples import Example
from prefero.data.formats import load_examples
from prefero.data.pictures import Picture
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError
from tests.data.test_formats import PICTURE_LAYOUTS, write
from tests.training.tiny import tiny_tokenizer


def painted(grey: int, size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new("RGB", size, (grey, grey, grey))


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    painted(grey).save(buffer, "PNG")
    return buffer.getvalue()


def greys(example: Example) -> list[int]:
    found = []
    for response in example.responses:
        assert isinstance(response.content, Picture)
        found.append(response.content.open().getpixel((0, 0))[0])
    return found


def only(rows: Any, **options: Any) -> Example:
    (example,) = load_examples(rows, **options)
    return example


KEPT = {
    "PIL": painted,
    "bytes": png,
    "array": lambda grey: np.asarray(painted(grey)),
    "rows of pixels": lambda grey: np.asarray(painted(grey)).tolist(),
    "datasets": lambda grey: {"bytes": png(grey), "path": None},
}


@pytest.mark.parametrize("beside", [{"score": 4}, {"rating": 4}])
def test_images_beside_a_response_are_those_of_the_prompt(beside: dict[str, Any]) -> None:
    example = only([{"images": [painted(9)], "prompt": "What is it?", "response": "A cat.", **beside}])
    assert [response.content for response in example.responses] == ["A cat."]
    assert example.responses[0].columns["score"] == 4 and len(example.images[""]) == 1


@pytest.mark.parametrize("kept", KEPT)
def test_a_pair_of_images_whatever_they_are_kept_as(kept: str) -> None:
    example = only([{"caption": "a cat", "chosen": KEPT[kept](200), "rejected": KEPT[kept](50)}])
    assert example.prompt == "a cat" and example.roles == ("chosen", "rejected")
    assert greys(example) == [200, 50]


def test_paths_are_relative_to_the_file_that_the_row_stands_in(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    for grey in (200, 50):
        painted(grey).save(tmp_path / "data" / "images" / f"{grey}.PNG")
    row = {"prompt": "a cat", "chosen": "images/200.PNG", "rejected": "images/50.PNG"}
    (tmp_path / "data" / "train.jsonl").write_text(json.dumps(row))
    monkeypatch.chdir(tmp_path)
    assert greys(only(tmp_path / "data" / "train.jsonl")) == [200, 50]
    assert greys(only("data/train.jsonl")) == [200, 50]


LAYOUT_ROWS = {
    "picture_pairs": {"prompt": "a cat", "chosen": "1.png", "rejected": "2.png"},
    "picks": {"caption": "a cat", "jpg_0": "1.png", "jpg_1": "2.png", "label_0": 1.0},
    "picture_lists": {"prompt": "a cat", "images": ["1.png", "2.png"], "scores": [2.0, 1.0]},
    "unpaired_pictures": {"prompt": "a cat", "image": "1.png", "label": True},
}


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("layout", LAYOUT_ROWS)
def test_a_layout_is_the_same_from_every_kind_of_file(tmp_path: Path, layout: str, ending: str) -> None:
    for grey in (1, 2):
        painted(grey).save(tmp_path / f"{grey}.png")
    read = load_examples(write(tmp_path, [LAYOUT_ROWS[layout]], ending))
    assert read.format == layout
    assert greys(read[0]) == ([1] if layout == "unpaired_pictures" else [1, 2])


def test_every_layout_is_tried_here() -> None:
    assert set(LAYOUT_ROWS) == PICTURE_LAYOUTS


def test_datasets_images_stay_encoded_until_they_are_opened(tmp_path: Path) -> None:
    kind = datasets.Features(
        {"prompt": datasets.Value("string"), "chosen": datasets.Image(), "rejected": datasets.Image()}
    )
    rows = [{"prompt": "a cat", "chosen": painted(200), "rejected": painted(50)}]
    made = datasets.Dataset.from_list(rows, features=kind)
    made.save_to_disk(tmp_path / "saved")
    for source in (made, tmp_path / "saved"):
        example = only(source)
        assert greys(example) == [200, 50]
        assert all(isinstance(response.content.content, bytes) for response in example.responses)


def test_lists_of_datasets_images() -> None:
    kind = datasets.Features(
        {
            "prompt": datasets.Value("string"),
            "images": datasets.List(datasets.Image()),
            "scores": datasets.List(datasets.Value("float32")),
        }
    )
    rows = [{"prompt": "a cat", "images": [painted(1), painted(2), painted(3)], "scores": [0.5, 2.0, 1.0]}]
    example = only(datasets.Dataset.from_list(rows, features=kind))
    assert greys(example) == [1, 2, 3]
    assert [response.columns["score"] for response in example.responses] == [0.5, 2.0, 1.0]


@pytest.mark.parametrize(
    ("label", "order", "tie"), [(1.0, [200, 50], False), (0.0, [50, 200], False), (0.5, [200, 50], True)]
)
def test_picks_are_ordered_by_their_label(label: float, order: list[int], tie: bool) -> None:
    row = {"caption": "a cat", "jpg_0": png(200), "jpg_1": png(50), "label_0": label, "label_1": 1 - label}
    example = only([{**row, "has_label": True, "are_different": True}])
    assert greys(example) == order
    assert example.columns == {"tie": tie, "preference": 0.5 if tie else 1.0}
    if tie:
        with pytest.raises(PreferoError, match="ties: 1"):
            arrange([example], ("chosen", "rejected"))


def test_a_pick_without_a_label_is_named_and_can_be_left_out() -> None:
    row = {"caption": "a cat", "jpg_0": png(200), "jpg_1": png(50), "label_0": 0.5, "has_label": False}
    with pytest.raises(PreferoError, match=r"row 2, field 'label_0': found 0.5, has_label False"):
        load_examples([{**row, "has_label": True}, row])
    left = load_examples([{**row, "has_label": True}, row], skip_bad_rows=True)
    assert len(left) == 1 and len(left.skipped) == 1


def test_candidates_with_scores_of_their_own_become_pairs_where_a_method_wants_pairs() -> None:
    images = [{"image": png(10), "score": 1}, {"image": png(20), "score": 3}, {"image": png(30), "score": 2}]
    example = only([{"prompt": "a cat", "images": images}])
    assert [response.columns["score"] for response in example.responses] == [1, 3, 2]
    (pair,) = arrange([example], ("chosen", "rejected"))
    assert greys(pair) == [20, 10]


def test_ranked_paths(tmp_path: Path) -> None:
    for grey in (10, 20):
        painted(grey).save(tmp_path / f"{grey}.jpg")
    row = {"prompt": "a cat", "image_path": ["10.jpg", "20.jpg"], "rank": [1, 0]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    example = only(tmp_path / "train.jsonl")
    assert [response.columns["rank"] for response in example.responses] == [1, 0]


def test_labelled_images_are_unpaired_data() -> None:
    example = only([{"prompt": "a cat", "image": png(10), "label": False}])
    assert [response.columns["label"] for response in example.responses] == [-1.0]
    assert greys(example) == [10]


def test_a_class_is_a_prompt_and_an_image_model_may_need_none() -> None:
    pair = {"chosen": png(1), "rejected": png(2)}
    assert only([{"class": 7, **pair}]).prompt == "7"
    assert only([{"class": "otter", **pair}]).prompt == "otter"
    assert only([pair]).prompt == ""


def test_annotations_and_further_responses_are_read_as_with_text() -> None:
    row = {"prompt": "a cat", "chosen": png(1), "rejected": png(2), "gold": png(3), "sample": 4}
    row["prompt_corrupted"] = "a dog"
    example = only([{**row, "chosen_score": 3, "rejected_score": 1, "gold_score": 5, "weight": 2}])
    assert example.roles == ("chosen", "rejected", "gold") and greys(example) == [1, 2, 3]
    assert [response.columns["score"] for response in example.responses] == [3, 1, 5]
    assert example.columns["weight"] == 2 and example.prompts == {"corrupted": "a dog"}


def test_text_beside_images_stays_text() -> None:
    """A question about images has answers in words: its images are no candidates."""
    example = only([{"prompt": "what?", "images": [png(1)], "chosen": "a cat", "rejected": "a dog"}])
    assert [response.content for response in example.responses] == ["a cat", "a dog"]
    example = only([{"prompt": "what?", "image": png(1), "completion": "a cat", "label": True}])
    assert example.responses[0].content == "a cat"


PAIR = {"prompt": "a cat", "chosen": png(200), "rejected": png(50)}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no side": ({**PAIR, "rejected": None}, "field 'rejected': is null. Expected an image"),
    "text": ({**PAIR, "rejected": "a dog"}, "field 'rejected': found str 'a dog'. Expected an image"),
    "no file": ({**PAIR, "rejected": "nowhere.png"}, "field 'rejected': there is no file .*nowhere.png"),
    "the same": ({**PAIR, "rejected": PAIR["chosen"]}, "field 'rejected': it equals chosen"),
    "fractions": (
        {**PAIR, "rejected": [[0.5]]},
        "'rejected': an array of float64.*rows of pixels, whole num",
    ),
    "ragged": ({**PAIR, "rejected": [[1], [1, 2]]}, "field 'rejected': lists of different lengths"),
    "odd array": ({**PAIR, "rejected": np.zeros((2, 2, 9), np.uint8)}, r"'rejected': an array of shape \(2,"),
    "no caption": ({**PAIR, "prompt": ["a"]}, "field 'prompt': found list. Expected a caption, or a class"),
}


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_row_names_its_place_and_what_was_expected(problem: str) -> None:
    row, message = BAD[problem]
    with pytest.raises(PreferoError, match=f"rows, row 2, {message}" if "field" in message else message):
        load_examples([PAIR, row])


def test_lists_with_one_image_or_a_missing_one_are_refused() -> None:
    good = {"prompt": "a cat", "images": [png(1), png(2)]}
    with pytest.raises(PreferoError, match=r"row 2, field 'images': 1 image. Expected two images"):
        load_examples([good, {**good, "images": [png(1)]}])
    with pytest.raises(PreferoError, match=r"row 2, field 'images\[1\].image': missing"):
        load_examples([good, {**good, "images": [{"image": png(1)}, {"score": 2}]}])


def test_a_language_model_refuses_images_by_their_place() -> None:
    with pytest.raises(PreferoError, match="row 1, field 'chosen': the response is an image, which a lang"):
        tokenize(load_examples([PAIR]), tiny_tokenizer(), roles=("chosen", "rejected"))
