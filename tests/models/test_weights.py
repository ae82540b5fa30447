"""A model's files have to hold the weights that its configuration asks for, and numbers in all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from prefero.errors import PreferoError
from prefero.models.loading import ModelSource
from tests.training.tiny import saved_model, tiny_experts, tiny_model

Weights = dict[str, torch.Tensor]
ENDS: Any = {"bos_token_id": None, "eos_token_id": None}
LAYER = "model.layers.1.self_attn.q_proj.weight"


def configured(folder: Path, **settings: Any) -> str:
    """A saved model whose configuration was edited afterwards."""
    saved_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))
    return str(folder)


def rewritten(folder: Path, change: Callable[[Weights], object], **options: Any) -> str:
    """A saved model whose weights were edited afterwards."""
    saved_model(folder, **options)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def refused(name: str, *told: str) -> str:
    with pytest.raises(PreferoError) as caught:
        ModelSource(name).load()
    message = str(caught.value)
    for part in (name, *told):
        assert part in message
    return message


def test_a_layer_that_the_files_lack_is_named_and_the_others_are_counted(tmp_path: Path) -> None:
    message = refused(configured(tmp_path, num_hidden_layers=3), "model.layers.2", "lack", "(9 in all)")
    assert message.count("layers.2") == 3


def test_one_weight_that_the_files_lack(tmp_path: Path) -> None:
    refused(rewritten(tmp_path, lambda weights: weights.pop(LAYER)), LAYER, "lack")


def test_a_layer_that_the_configuration_has_no_place_for(tmp_path: Path) -> None:
    refused(configured(tmp_path, num_hidden_layers=1), "model.layers.1", "no place")


def test_a_bias_that_the_configuration_has_no_place_for(tmp_path: Path) -> None:
    name = LAYER.replace("weight", "bias")
    refused(rewritten(tmp_path, lambda weights: weights.update({name: torch.zeros(16)})), name)


def test_weights_beside_the_model_are_said_to_be_left_out(tmp_path: Path, caplog: Any) -> None:
    head = {"v_head.summary.weight": torch.zeros(1, 16)}
    ModelSource(rewritten(tmp_path, lambda weights: weights.update(head))).load()
    assert "v_head.summary.weight" in caplog.text


def test_weights_of_another_size(tmp_path: Path) -> None:
    refused(configured(tmp_path / "v", vocab_size=40), "embed_tokens", "vocab_size", "25×16", "40×16")
    refused(configured(tmp_path / "m", intermediate_size=48), "mlp.down_proj", "16×32", "16×48")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none(tmp_path: Path, number: float) -> None:
    def spoil(weights: Weights) -> None:
        weights[LAYER][3, 5] = number

    refused(rewritten(tmp_path, spoil), LAYER, "finite")


def test_a_type_too_narrow_for_the_weights(tmp_path: Path) -> None:
    def widen(weights: Weights) -> None:
        weights[LAYER][0, 0] = 1e6

    name = rewritten(tmp_path, widen)
    ModelSource(name, dtype="bfloat16").load()
    with pytest.raises(PreferoError, match=f"{LAYER}.*bfloat16"):
        ModelSource(name, dtype="float16").load()


@pytest.mark.parametrize("length", [0, 5, 5000])
def test_a_file_that_ends_early_is_named(tmp_path: Path, length: int) -> None:
    file = Path(saved_model(tmp_path)) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    refused(str(tmp_path), str(file), "ends early")


def test_one_of_several_files_ends_early_or_is_not_there(tmp_path: Path) -> None:
    saved_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    tiny_model().save_pretrained(tmp_path, max_shard_size="8KB")
    second = sorted(tmp_path.glob("*.safetensors"))[1]
    assert ModelSource(str(tmp_path)).load() is not None
    whole = second.read_bytes()
    second.write_bytes(whole[:-100])
    refused(str(tmp_path), str(second))
    second.unlink()
    refused(str(tmp_path), second.name)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_settings_that_end_early_are_named(tmp_path: Path, name: str) -> None:
    file = Path(saved_model(tmp_path)) / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    source = ModelSource(str(tmp_path))
    with pytest.raises(PreferoError, match=f"the file {file} cannot be read"):
        source.processor() if "token" in name else source.config()


def test_an_index_of_weights_that_ends_early_is_named(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path, max_shard_size="8KB")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text()[:60])
    refused(str(tmp_path), str(index))


def test_a_buffer_that_is_computed_again_is_no_fault(tmp_path: Path, caplog: Any) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=25, n_embd=8, n_layer=1, n_head=1, n_positions=16, **ENDS)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    assert ModelSource(str(tmp_path)).load() is not None
    assert not caplog.text


def test_an_old_weights_file_that_ends_early_is_named(tmp_path: Path) -> None:
    saved_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), tmp_path / "pytorch_model.bin")
    assert ModelSource(str(tmp_path)).load() is not None
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:3000])
    refused(str(tmp_path), str(file))


def test_tied_weights_and_files_with_other_names_are_no_fault(tmp_path: Path, caplog: Any) -> None:
    tied = tiny_model(tied=True)
    tied.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    tiny_experts().save_pretrained(tmp_path / "experts")
    for name in ("tied", "experts"):
        assert ModelSource(str(tmp_path / name)).load() is not None
    assert not caplog.text
