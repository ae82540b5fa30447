from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prefero.demo import start
from prefero.demo.reviews import vocabulary
from prefero.demo.start import StartModel, StartRecipe, start_model, word_tokenizer
from tests.demo.small import SMALL


def weights(made: StartModel) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in made.model.parameters()])


def test_the_tokenizer_gives_back_the_text_one_token_a_word() -> None:
    tokenizer = word_tokenizer(vocabulary(), 64)
    text = "the taste was not bad, but i would avoid it."
    ids = tokenizer(text).input_ids
    assert len(ids) == 1 + 12
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer("the unheard taste", add_special_tokens=False).input_ids[1] == tokenizer.unk_token_id
    apart = [tokenizer(part, add_special_tokens=False).input_ids for part in ("the taste", "was bad.")]
    assert apart[0] + apart[1] == tokenizer("the taste was bad.", add_special_tokens=False).input_ids


def test_a_start_model_is_trained_once_and_then_read(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    first = SMALL.start_model(tmp_path, report=lambda done, total: steps.append((done, total)))
    again = SMALL.start_model(tmp_path, report=lambda *_: pytest.fail("trained a second time"))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(weights(first), weights(again))
    assert first.tokenizer.get_vocab() == again.tokenizer.get_vocab()
    assert not again.model.training


def test_the_same_recipe_and_seed_give_the_same_model_wherever(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = SMALL.start_model(tmp_path / "a")
    torch.manual_seed(2)
    other = SMALL.start_model(tmp_path / "b")
    assert torch.equal(weights(one), weights(other))
    assert not torch.equal(weights(one), weights(SMALL.start_model(tmp_path / "a", seed=1)))


def test_training_leaves_the_global_generator_and_threads_alone(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    SMALL.start_model(tmp_path)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_another_recipe_corpus_or_vocabulary_is_another_entry(tmp_path: Path) -> None:
    recipe = SMALL.recipe

    def folder(words: tuple[str, ...] = vocabulary(), recipe: StartRecipe = recipe, suffix: str = "") -> Path:
        def corpus(count: int) -> list[tuple[str, str]]:
            return [(prompt, text + suffix) for prompt, text in SMALL.corpus(count, 0)]

        return start_model("reviews", words, corpus, recipe, seed=0, cache=tmp_path).folder

    made = [
        folder(),
        folder(words=(*vocabulary(), "zebra")),
        folder(recipe=replace(recipe, lr=1e-3)),
        folder(suffix=" ."),
    ]
    assert len(set(made)) == 4
    assert folder() == made[0]


def test_an_interrupted_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(start.PreTrainedTokenizerFast, "save_pretrained", killed)
        SMALL.start_model(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert SMALL.start_model(tmp_path).folder.is_dir()


def test_a_process_that_comes_second_takes_what_is_there(tmp_path: Path) -> None:
    made = SMALL.start_model(tmp_path / "ours")
    theirs = SMALL.start_model(tmp_path / "theirs")
    start.save_whole(theirs.folder, made.model.save_pretrained)  # theirs appeared while ours was trained
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == [theirs.folder.name]
