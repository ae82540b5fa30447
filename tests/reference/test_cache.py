"""The cache gives what the model gives, once: it is shared, survives a kill, and refuses what does not
belong."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from prefero.data.formats import load_examples
from prefero.data.packing import pack
from prefero.data.tokenize import TokenDataset, tokenize
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.scoring import Language
from prefero.reference import cache as cache_module
from prefero.reference.cache import (
    CachedLogps,
    CacheShare,
    CellStore,
    cell_key,
    model_fingerprint,
    open_store,
)
from prefero.storage import cache_folder
from prefero.training.trainer import PreferenceTrainer
from tests.language import LANGUAGE
from tests.training.tiny import pairs, tiny_model, tiny_tokenizer


def tokens(count: int = 12, seed: int = 0) -> TokenDataset:
    return tokenize(load_examples(pairs(count, seed)), tiny_tokenizer(), roles=("chosen", "rejected"))


def filled(folder: Path, data: Any, **options: Any) -> tuple[CachedLogps, int]:
    model = tiny_model()
    cached = CachedLogps(CellStore(folder, model_fingerprint(model)))
    return cached, cached.fill(LANGUAGE, model, data, tokens_per_row=50, **options)


def test_it_holds_what_the_model_gives(tmp_path: Path) -> None:
    data = tokens()
    cached, scored = filled(tmp_path / "cache", data)
    assert scored == 24
    expected = Language.score(tiny_model(), pack(data.examples))[""]
    found = cached([example.cells for example in data])
    torch.testing.assert_close(torch.from_numpy(found), expected.logps.detach(), atol=2e-6, rtol=0)
    assert (found[~expected.mask.numpy()] == 0).all()


def test_holes_are_not_scored(tmp_path: Path) -> None:
    scored = np.array([True, False, True])
    cell = Cell(np.array([2, 3]), np.array([4, 5, 0]), scored)
    cached, _ = filled(tmp_path / "cache", [TokenExample((cell,), {}, 0)])
    whole, _ = filled(tmp_path / "cache", [TokenExample((Cell(cell.context, cell.response),), {}, 0)])
    values, without = cached([[cell]])[0, 0], whole([[Cell(cell.context, cell.response)]])[0, 0]
    assert values[1] == 0 and without[1] < 0
    np.testing.assert_allclose(values[scored], without[scored], atol=1e-6)


def test_data_sets_that_share_rows_share_entries(tmp_path: Path) -> None:
    first, second = tokens(8).examples, tokens(12).examples
    assert filled(tmp_path / "cache", first)[1] == 16
    assert filled(tmp_path / "cache", second[::-1])[1] == 8  # any order
    assert filled(tmp_path / "cache", second)[1] == 0


def _fill_and_die(folder: Path) -> None:
    cache_module._WRITE_SECONDS = 0.0
    torch.set_num_threads(1)

    def dying(rows: list[Any]) -> Any:
        for number, row in enumerate(rows):
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield row

    filled(folder, tokens(), progress=dying)


def test_what_was_written_before_a_kill_is_not_scored_again(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_fill_and_die, args=(tmp_path / "cache",))
    child.start()
    child.join(timeout=120)
    assert child.exitcode == -signal.SIGKILL
    cached, again = filled(tmp_path / "cache", tokens())
    assert 0 < again < 24
    fresh, _ = filled(tmp_path / "fresh", tokens())
    cells = [example.cells for example in tokens()]
    np.testing.assert_allclose(cached(cells), fresh(cells), atol=2e-6)


def test_processes_divide_the_work_and_make_equally_many_passes(tmp_path: Path) -> None:
    data, passes = tokens(), []
    model = tiny_model()
    for rank in range(3):
        cached = CachedLogps(CellStore(tmp_path / f"rank-{rank}", model_fingerprint(model)))

        def counting(rows: list[Any]) -> Any:
            passes.append(len(rows))
            return rows

        # Three folders: nobody sees what the others have written.
        with pytest.raises(PreferoError, match="all machines share"):
            cached.fill(
                LANGUAGE, model, data, tokens_per_row=50, share=CacheShare(rank, 3), progress=counting
            )
    assert len(set(passes)) == 1
    merged = CellStore(tmp_path / "all", model_fingerprint(model))
    for shard in tmp_path.glob("rank-*/*.safetensors"):
        (merged.folder / shard.name).write_bytes(shard.read_bytes())
    merged.refresh()
    assert not CachedLogps(merged).lacking(data)


def test_another_model_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "cache", tokens())
    with pytest.raises(PreferoError, match="scores of another model"):
        CellStore(tmp_path / "cache", model_fingerprint(tiny_model(seed=1)))


def test_changed_and_cut_off_files_are_refused(tmp_path: Path) -> None:
    cached, _ = filled(tmp_path / "cache", tokens())
    (shard,) = (tmp_path / "cache").glob("*.safetensors")
    whole = shard.read_bytes()
    cells = [example.cells for example in tokens()]
    shard.write_bytes(whole[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(PreferoError, match="is damaged; delete it"):
        CachedLogps(CellStore(tmp_path / "cache", cached.store.fingerprint))(cells)
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PreferoError, match="is damaged; delete it"):
        CellStore(tmp_path / "cache", cached.store.fingerprint)
    manifest = tmp_path / "cache" / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "format": 0}))
    with pytest.raises(PreferoError, match="format 0"):
        CellStore(tmp_path / "cache", cached.store.fingerprint)
    manifest.write_text("{")
    with pytest.raises(PreferoError, match="cannot be read"):
        CellStore(tmp_path / "cache", cached.store.fingerprint)


def test_drafts_of_killed_processes_are_not_read(tmp_path: Path) -> None:
    cached, _ = filled(tmp_path / "cache", tokens())
    (tmp_path / "cache" / ".x.safetensors.abc").write_bytes(b"half")
    assert len(CellStore(tmp_path / "cache", cached.store.fingerprint)) == 24


def test_the_default_place_is_a_folder_of_the_cache(own_cache: Path) -> None:
    assert cache_folder("references") == own_cache / "references"
    assert open_store("abc").folder == own_cache / "references" / "abc"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PreferoError, match="cannot be used"):
        open_store("abc", tmp_path / "file" / "inside")


SIZES: Any = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}

IDS = st.lists(st.integers(0, 5), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(IDS, IDS, IDS, IDS, st.booleans())
def test_keys_tell_cells_apart(one: Any, two: Any, three: Any, four: Any, hole: bool) -> None:
    first = Cell(np.array(one), np.array(two))
    second = Cell(np.array(three), np.array(four))
    assert (cell_key(first) == cell_key(second)) == (one == three and two == four)
    holes = Cell(first.context, first.response, np.full(len(two), not hole))
    assert (cell_key(first) == cell_key(holes)) != hole


def test_another_version_of_the_tokenizing_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell(np.array([1, 2]), np.array([3]))
    before = cell_key(cell)
    monkeypatch.setattr(cache_module, "TOKENIZING", cache_module.TOKENIZING + 1)
    assert cell_key(cell) != before


class TestFingerprint:
    def test_any_weight_counts(self) -> None:
        model = tiny_model()
        before = model_fingerprint(model)
        assert before == model_fingerprint(tiny_model())
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[3, 2] += 1e-6
        assert model_fingerprint(model) != before

    def test_what_changes_the_numbers_counts(self) -> None:
        model = tiny_model()
        assert model_fingerprint(model) != model_fingerprint(model, precision="bf16")
        assert model_fingerprint(model) != model_fingerprint(tiny_model(dtype=torch.bfloat16))
        other = tiny_model()
        other.config.rms_norm_eps *= 2
        assert model_fingerprint(model) != model_fingerprint(other)
        other = tiny_model()
        other.config._name_or_path, other.config.use_cache = "elsewhere", not other.config.use_cache
        assert model_fingerprint(model) == model_fingerprint(other)

    def test_classes_of_lengths_count(self) -> None:
        """Where rotary positions depend on length; elsewhere nothing is scored apart."""
        rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=rope))
        assert LANGUAGE.scored_apart(tiny_model()) == ""
        apart = LANGUAGE.scored_apart(model)
        assert apart == "dynamic: classes of lengths from 16"
        assert model_fingerprint(model, precision=apart) != model_fingerprint(model)

    def test_without_adapters_it_is_the_model_below(self) -> None:
        lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
        adapted = get_peft_model(tiny_model(), lora)
        assert model_fingerprint(adapted, adapters=False) == model_fingerprint(tiny_model())
        assert model_fingerprint(adapted) != model_fingerprint(tiny_model())


def test_a_second_method_scores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, scored = [], cache_module._scored

    def counting(*arguments: Any) -> Any:
        calls.append(arguments)
        return scored(*arguments)

    monkeypatch.setattr(cache_module, "_scored", counting)
    for number, objective in enumerate(["dpo", "ipo", "kto"]):
        PreferenceTrainer(
            tiny_model(),
            pairs(10),
            pairs(3, seed=9),
            objective=objective,
            processing_class=tiny_tokenizer(),
            output_dir=str(tmp_path / objective),
            use_cpu=True,
            disable_tqdm=True,
            max_steps=1,
            save_strategy="no",
        ).train()
        if number == 0:
            assert calls
            calls.clear()
        elif objective == "ipo":
            assert not calls
    assert calls, "the mismatched view has cells of its own"


def test_the_frozen_copy_is_not_kept(tmp_path: Path) -> None:
    trainer = PreferenceTrainer(
        tiny_model(),
        pairs(6),
        processing_class=tiny_tokenizer(),
        output_dir=str(tmp_path / "run"),
        use_cpu=True,
        disable_tqdm=True,
    )
    assert not trainer.references.providers and list(trainer.references.cached) == ["reference"]
