"""Rows with images become token ids in which every image stands as often as the model reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from prefero.data.chat import Writing
from prefero.data.formats import load_examples
from prefero.data.images import ImagePrompts, image_ids, keys_of
from prefero.data.tokenize import TokenDataset, tokenize
from prefero.errors import PreferoError
from tests.vision import PROCESSORS, image

ASKED = "what colour is this ?"


def turn(role: str, *content: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"role": role, "content": parts}


SHOWN = {"type": "image"}


def row(*images: Any, prompt: Any = None, **more: Any) -> dict[str, Any]:
    prompt = [turn("user", *[SHOWN] * len(images), ASKED)] if prompt is None else prompt
    chosen, rejected = ([{"role": "assistant", "content": word}] for word in ("it was red", "no"))
    return {"images": list(images), "prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def reader(family: str = "llava") -> ImagePrompts:
    processor = PROCESSORS[family]()
    return ImagePrompts(processor, processor.tokenizer.convert_tokens_to_ids("<image>"))


def read(rows: list[dict[str, Any]], images: ImagePrompts | None = None, **options: Any) -> TokenDataset:
    images = images or reader()
    tokenizer = images.processor.tokenizer
    return tokenize(load_examples(rows), tokenizer, roles=("chosen", "rejected"), images=images, **options)


def words(images: ImagePrompts, ids: np.ndarray) -> list[str]:
    """Tokens, one ``*`` for a run of an image's."""
    found = images.processor.tokenizer.convert_ids_to_tokens(np.where(ids < 0, 0, ids))
    keys = keys_of(ids)
    return [
        "*" if key >= 0 else word
        for place, (word, key) in enumerate(zip(found, keys, strict=True))
        if key < 0 or place == 0 or keys[place - 1] != key
    ]


@pytest.mark.parametrize("family", PROCESSORS)
def test_ids_are_those_of_the_processor(family: str) -> None:
    images = reader(family)
    (example,) = read([row(image(0), image(1, (48, 32)))], images)
    text = images.apply_chat_template(
        [turn("user", SHOWN, SHOWN, ASKED)], tokenize=False, add_generation_prompt=True
    )
    made = images.processor(text=[text], images=[[image(0), image(1, (48, 32))]], add_special_tokens=False)
    context = example.cells[0].context
    assert np.where(context < 0, images.placeholder, context).tolist() == made["input_ids"][0]
    assert set(example.images) == set(np.unique(keys_of(context[context < 0])))


def test_the_context_is_shared_and_each_image_has_ids_of_its_own() -> None:
    (example,) = read([row(image(0), image(1))])
    chosen, rejected = example.cells
    assert chosen.context is rejected.context
    inside = chosen.context[chosen.context < 0]
    assert len(inside) == len(np.unique(inside)) == 32
    assert len(example.images) == 2


def test_equal_images_have_equal_ids_however_they_are_kept(tmp_path) -> None:
    image(0).save(tmp_path / "one.png")
    kept = (image(0), str(tmp_path / "one.png"), (tmp_path / "one.png").read_bytes(), np.asarray(image(0)))
    contexts = [example.cells[0].context for example in read([row(one) for one in kept])]
    assert all((context == contexts[0]).all() for context in contexts)
    (other,) = read([row(image(1))])
    assert (other.cells[0].context != contexts[0]).sum() == 16, "another image differs in its tokens alone"


def test_another_processor_gives_other_ids() -> None:
    """The same picture, read otherwise, must not find the log-probabilities of the first reading on disk."""
    first, second = reader(), reader()
    second.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    (one,), (other,) = read([row(image(0))], first), read([row(image(0))], second)
    assert set(one.images) != set(other.images)


def test_images_stand_before_the_text_where_a_prompt_has_no_place_for_them() -> None:
    images = reader()
    (said,) = read([row(image(0), prompt=[{"role": "user", "content": ASKED}])], images)
    (plain,) = read([row(image(0), prompt=ASKED, chosen=" red", rejected=" no")], images)
    assert words(images, said.cells[0].context)[2:4] == ["user", "*"]
    assert words(images, plain.cells[0].context)[0] == "*"


def test_parts_may_hold_their_images() -> None:
    images = reader()
    prompt = [turn("user", {"type": "image", "image": image(0), "text": None}, ASKED)]
    (held,) = read([{**row(prompt=prompt), "images": None}], images)
    (beside,) = read([row(image(0))], images)
    assert (held.cells[0].context == beside.cells[0].context).all()


def test_a_clip_is_its_frames() -> None:
    (clip,) = read([{**row(), "images": None, "frames": [image(n) for n in range(4)]}])
    assert (clip.cells[0].context < 0).sum() == 64


def test_paths_are_relative_to_the_file(tmp_path) -> None:
    import json

    (tmp_path / "seen").mkdir()
    image(0).save(tmp_path / "seen" / "one.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row("seen/one.png")))
    images = reader()
    data = tokenize(
        load_examples(tmp_path / "rows.jsonl"), images.processor.tokenizer, roles=("chosen",), images=images
    )
    assert (data[0].cells[0].context == read([row(image(0))])[0].cells[0].context).all()


class TestErrors:
    def refused(self, rows: list[dict[str, Any]], message: str, **options: Any) -> None:
        with pytest.raises(PreferoError, match=message):
            read(rows, **options)

    def test_as_many_parts_as_images(self) -> None:
        prompt = [turn("user", SHOWN, ASKED)]
        self.refused(
            [row(image(0)), row(image(0), image(1), prompt=prompt)], "row 2.*1 image parts.*2 images"
        )
        self.refused([row(prompt=prompt)], "1 image parts, and the row has 0 images")

    def test_as_many_marks_as_images(self) -> None:
        plain = row(image(0), prompt="<image> <image> red", chosen="a", rejected="no")
        self.refused([plain], "row 1, field 'prompt': 2 times <image>, and 1 images")

    def test_an_image_that_cannot_be_opened(self) -> None:
        self.refused([row("nowhere.png")], "row 1, field 'images.0.': there is no image nowhere.png")
        self.refused([row(b"no image")], "row 1, field 'images.0.': 8 bytes cannot be read as an image")
        self.refused([row("https://a.org/b.png")], "row 1, field 'images.0.*address.*download")

    def test_a_text_model_does_not_see(self) -> None:
        with pytest.raises(PreferoError, match="shows 1 images, which this model does not see"):
            tokenize(load_examples([row(image(0))]), reader().processor.tokenizer, roles=("chosen",))

    def test_images_that_do_not_fit_are_not_cut(self) -> None:
        self.refused(
            [row(image(0))],
            "row 1: the images do not fit.* 16 of them",
            max_length=20,
            too_long="keep_recent_prompt",
        )

    def test_images_in_responses(self) -> None:
        chosen = [turn("assistant", SHOWN)]
        self.refused([{**row(), "chosen": chosen}], "an image in a response")


def test_what_is_dropped_to_fit_is_the_oldest_turn_with_its_image() -> None:
    images = reader()
    turns = [
        turn("user", SHOWN, ASKED),
        turn("assistant", "red"),
        turn("user", SHOWN, "a square ?"),
    ]
    whole, short = (
        read([row(image(0), image(1), prompt=turns)], images, max_length=length)[0] for length in (70, 36)
    )
    assert words(images, whole.cells[0].context).count("*") == 2
    assert words(images, short.cells[0].context)[:6] == ["<s>", "<turn>", "user", "*", "a", "square"]
    (key,) = short.images
    alone = read([row(image(1))], images)[0]
    assert set(alone.images) == {key}, "the image that is left is the second one"


@pytest.mark.parametrize("side", ["prompt", "chosen"])
def test_the_mark_of_an_image_in_a_row_without_images_is_refused_by_row(side: str) -> None:
    plain = {"prompt": "what", "chosen": "red", "rejected": "no"}
    with pytest.raises(PreferoError, match=r"rows, row 1: the text spells <image>.*no image for it\. Remove"):
        read([{**plain, side: "the <image> red"}])


def test_text_before_an_image_may_be_cut() -> None:
    images = reader()
    (example,) = read(
        [row(image(0), prompt="red " * 9 + "<image> ?", chosen=" red", rejected=" no")],
        images,
        max_length=20,
        too_long="keep_recent_prompt",
        writing=Writing("none"),
    )
    assert words(images, example.cells[0].context) == ["red", "*", "?"]


def test_a_view_shows_its_own_images() -> None:
    rows = [row(image(0), images_corrupted=[image(5)])]
    (example,) = read(rows, views={"corrupted": ("chosen",)})
    (spoilt,) = example.views["corrupted"]
    same = example.cells[0].context == spoilt.context
    assert (~same).sum() == 16 and len(example.images) == 2


def test_whole_texts_as_responses_do_not_score_images() -> None:
    (example,) = read([row(image(0))], views={"with_prompt": ()})
    for cell in example.views["with_prompt"]:
        assert (cell.scored == (cell.response >= 0)).all()


def test_prompts_with_other_images_are_other_prompts() -> None:
    rows = [row(image(n % 2)) for n in range(20)]
    kept, held = load_examples(rows).hold_out(0.5)
    seen = [{example.images[""][0].digest for example in part} for part in (kept, held)]
    assert seen[0] and seen[1] and not seen[0] & seen[1]


def test_keys_and_places_round_trip() -> None:
    for key in (0, 1, 2**46 - 1):
        ids = image_ids(key, 5)
        assert (ids < 0).all() and (keys_of(ids) == key).all()
    assert (keys_of(np.asarray([0, 7])) == -1).all()


def test_images_are_opened_as_colours() -> None:
    grey = Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32))
    (example,) = read([row(grey)])
    assert (example.cells[0].context < 0).sum() == 16
