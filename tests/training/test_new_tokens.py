"""Tokens that a recipe adds: their rows are made, trained and saved, and plain libraries read the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prefero.errors import PreferoError
from prefero.evaluate.judges import learned_reward
from prefero.models.loading import ModelSource
from prefero.training.run import train
from tests.training.tiny import pairs, saved_model, tiny_tokenizer

TOKENS = ["<tool>", "</tool>"]
TIED = pytest.mark.parametrize("tied", [False, True])


def recipe(folder: Path, name: str, output: str, **model: Any) -> dict[str, Any]:
    data = folder / "data.jsonl"
    rows = [row | {"chosen": f"{row['chosen']} <tool> a </tool>"} for row in pairs(12)]
    data.write_text("\n".join(map(json.dumps, rows)))
    settings = {"use_cpu": True, "max_steps": 4, "examples_per_step": 6, "warmup_steps": 0}
    settings |= {"learning_rate": 0.02, "save_steps": 2, "logging_steps": 1}
    model = {"name": name, "add_tokens": TOKENS, **model}
    return {
        "model": model, "data": str(data), "training": settings, "samples": 0, "output": str(folder / output)
    }  # fmt: skip


def rows_of(model: Any) -> list[torch.Tensor]:
    return [
        module.weight.detach() for module in (model.get_input_embeddings(), model.get_output_embeddings())
    ]


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer("a b <tool> c </tool> d", return_tensors="pt").input_ids
    assert tokenizer.unk_token_id not in ids
    with torch.no_grad():
        return model.eval()(ids).logits


@TIED
def test_all_weights(tmp_path: Path, tied: bool, caplog: Any) -> None:
    start = saved_model(tmp_path / "start", tied=tied)
    output = train(recipe(tmp_path, start, "run"))
    assert "new tokens, whose rows are trained: <tool> </tool>" in caplog.text
    record = json.loads((output / "run.json").read_text())
    assert record["model"]["new_tokens"] == {"<tool>": 25, "</tool>": 26}
    model = AutoModelForCausalLM.from_pretrained(output / "model")
    tokenizer = AutoTokenizer.from_pretrained(output / "model")
    assert model.config.vocab_size == len(tokenizer) == 27
    begun = rows_of(ModelSource(start, add_tokens=TOKENS).load())
    old = rows_of(AutoModelForCausalLM.from_pretrained(start))
    for began, before, now in zip(begun, old, rows_of(model), strict=True):
        assert torch.equal(began[:25], before)
        assert float((began[25:] - before.mean(0)).abs().max()) < 1e-3
        assert float((now[25:] - began[25:]).abs().max()) > 1e-3
    # what is trained further has them, so that there is nothing to add
    assert not ModelSource(str(output / "model"), add_tokens=TOKENS).new_tokens


@TIED
def test_with_adapters(tmp_path: Path, tied: bool) -> None:
    start = saved_model(tmp_path / "start", tied=tied)
    lora = {"r": 2, "target_modules": ["q_proj"]}
    whole = train(recipe(tmp_path, start, "run", lora=lora))
    record = json.loads((whole / "run.json").read_text())
    assert record["references"] == {"reference": "frozen"}
    metrics = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(whole / "model")
    in_peft = peft.AutoPeftModelForCausalLM.from_pretrained(whole / "model")  # as long as its tokenizer
    ours = ModelSource(str(whole / "model")).load()
    expected = logits(in_peft, tokenizer)
    torch.testing.assert_close(logits(ours, tokenizer), expected)
    merged = ModelSource(str(whole / "model"), adapter="merge").load()
    merged.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(plain, tokenizer), expected, atol=1e-5, rtol=1e-5)
    began = rows_of(ModelSource(start, add_tokens=TOKENS).load())
    for before, now in zip(began, rows_of(plain), strict=True):
        assert torch.equal(before[:25], now[:25])  # only the new rows are trained
        assert float((before[25:] - now[25:]).abs().max()) > 1e-3

    resumed = recipe(tmp_path, start, "run", lora=lora)
    resumed["training"]["resume_from_checkpoint"] = str(whole / "checkpoint-2")
    again = train(resumed)
    repeated = [json.loads(line) for line in (again / "metrics.jsonl").read_text().splitlines()]
    assert repeated[-1]["loss"] == pytest.approx(metrics[-1]["loss"], abs=1e-7)
    torch.testing.assert_close(logits(ModelSource(str(again / "model")).load(), tokenizer), expected)

    further = train({**recipe(tmp_path, str(whole / "model"), "further"), "model": str(whole / "model")})
    assert (further / "model" / "adapter_model.safetensors").is_file()
    with pytest.raises(PreferoError, match="their tokenizer lacks '<more>'"):
        train(recipe(tmp_path, str(whole / "model"), "more", add_tokens=["<more>"]))


def test_a_reference_gets_the_same_rows(tmp_path: Path) -> None:
    start = saved_model(tmp_path / "start")
    run = recipe(tmp_path, start, "run") | {"reference": start}
    output = train(run)
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    own = train(recipe(tmp_path, start, "own"))
    expected = [json.loads(line) for line in (own / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["loss"] == pytest.approx(expected[-1]["loss"], abs=1e-6)
    reward = learned_reward(output)
    assert reward(["a"], [" <tool> b"]) != [0.0]


def test_rows_that_nobody_used_serve(tmp_path: Path) -> None:
    """Tables of many models are longer than their tokenizers."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=32, num_attention_heads=2, eos_token_id=0, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    source = ModelSource(str(tmp_path), add_tokens=[*TOKENS, "a"])
    assert source.new_tokens == {"<tool>": 25, "</tool>": 26}
    for rows in rows_of(source.load()):
        assert len(rows) == 32
        torch.testing.assert_close(rows[25:27], rows[:25].mean(0).expand(2, -1))
