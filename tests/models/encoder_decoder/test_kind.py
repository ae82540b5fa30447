"""Encoder–decoders in the trainer: what stands around texts, exact losses, resuming, samples, recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from prefero.errors import PreferoError
from prefero.models.encoder_decoder.kind import EncoderDecoder
from prefero.models.kind import Reading
from prefero.models.loading import kind_of
from prefero.objectives import from_config
from prefero.objectives.needs import dry_run
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import WORDS, pairs

SPECIAL = ["<pad>", "</s>", "<unk>", "<s>"]


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = [(token, vocabulary[token]) for token in ("<s>", "</s>") if token in template.split()]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


def t5(seed: int = 0) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(SPECIAL) + len(WORDS),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        initializer_factor=3.0,
    )
    return T5ForConditionalGeneration(config), tokenizer("$A </s>")


def bart(seed: int = 0) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        init_std=0.3,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=1,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config), tokenizer("<s> $A </s>")


FAMILIES = {"t5": t5, "bart": bart}


def trainer(folder: Path, family: str = "t5", data: Any = None, **settings: Any) -> PreferenceTrainer:
    model, processor = FAMILIES[family]()
    return PreferenceTrainer(
        model,
        pairs(12) if data is None else data,
        processing_class=processor,
        **{
            "output_dir": str(folder),
            "use_cpu": True,
            "disable_tqdm": True,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "learning_rate": 0.05,
            "examples_per_step": 4,
            "tokens_per_row": 64,
            "logging_steps": 1,
            "save_strategy": "no",
            **settings,
        },
    )


def scored(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Single responses with a reward, unpaired."""
    return [
        {"prompt": row["prompt"], "completion": row["chosen"], "score": float(n % 3)}
        for n, row in enumerate(rows)
    ]


def own_logps(model: Any, processor: Any, prompt: str, response: str) -> torch.Tensor:
    """Of a response's tokens by the model's own forward, with what its tokenizer puts around texts; the start
    token left out."""
    ids, labels = (processor(text, return_tensors="pt").input_ids for text in (prompt, response))
    logits = model(input_ids=ids, labels=labels).logits.log_softmax(-1)
    logps = logits.gather(-1, labels[..., None])[0, :, 0]
    return logps[labels[0] != processor.bos_token_id]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_surrounded_as_the_tokenizer_has_it(family: str) -> None:
    model, processor = FAMILIES[family]()
    kind = kind_of("auto", model, processor)
    assert isinstance(kind, EncoderDecoder)
    rows = pairs(3)
    data = kind.read(rows, dry_run(from_config("dpo")), Reading())
    for row, example in zip(rows, data, strict=True):
        for role, cell in zip(("chosen", "rejected"), example.cells, strict=True):
            assert cell.context.tolist() == processor(row["prompt"]).input_ids
            assert cell.response.tolist() == processor(row[role]).input_ids
    kind.adapt(model)
    scored = kind.score(model, kind.collate(list(data), [0] * 3))[""]
    for row, logps in zip(rows, scored.logps, strict=True):
        for role, sum_ in zip(("chosen", "rejected"), logps.sum(-1), strict=True):
            expected = own_logps(model, processor, row["prompt"], row[role]).sum()
            torch.testing.assert_close(sum_, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_step_is_the_gradient_of_the_papers_loss(family: str, tmp_path: Path) -> None:
    data = pairs(4)
    run = trainer(
        tmp_path / "run",
        family,
        data,
        max_grad_norm=0.0,
        objective={"method": "ipo", "tau": 0.2, "tokens": "sum"},
        max_steps=1,
    )
    before = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    run.train()
    model, processor = FAMILIES[family]()
    model.eval()
    sums = [
        [own_logps(model, processor, row["prompt"], row[role]).sum() for role in ("chosen", "rejected")]
        for row in data
    ]
    ratios = torch.stack([chosen - rejected for chosen, rejected in sums])
    (ratios - ratios.detach() - 1 / (2 * 0.2)).square().mean().backward()
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            moved = before[name] - dict(run.model.named_parameters())[name]
            assert (moved / 0.05 - weight.grad).norm() < 1e-3 * weight.grad.norm() + 1e-4, name


@pytest.mark.parametrize("objective", ["dpo", "simpo", "dro_v"])
def test_resuming_is_exact(objective: str, tmp_path: Path) -> None:
    rows = pairs(12)
    if objective == "dro_v":
        rows = [
            {"prompt": row["prompt"], "completion": row["chosen"], "score": float(n)}
            for n, row in enumerate(rows)
        ]
    settings = {"objective": objective, "max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path / "whole", "t5", rows, **settings)
    whole.train()
    later = trainer(tmp_path / "whole", "t5", rows, **settings)
    later.train(tmp_path / "whole" / "checkpoint-2")
    for (name, one), other in zip(whole.model.named_parameters(), later.model.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.oldest
def test_low_rank_adapters_are_their_own_reference(tmp_path: Path) -> None:
    adapters = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q", "v"])
    run = trainer(tmp_path / "run", objective="dpo", peft_config=adapters, max_steps=1)
    run.train()
    assert run.state.log_history[0]["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert not run.references.cached


def test_a_recipe_leaves_a_run_folder_with_samples(tmp_path: Path) -> None:
    model, processor = t5()
    model.save_pretrained(tmp_path / "start")
    processor.save_pretrained(tmp_path / "start")
    lines = scored(pairs(12))
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "model": str(tmp_path / "start"),
        "data": {"train": str(tmp_path / "data.jsonl"), "eval": 0.25},
        "objective": {"method": "dro_v"},
        "training": {"max_steps": 2, "arguments": {"use_cpu": True}},
        "samples": 2,
        "output": str(tmp_path / "run"),
    }
    folder = train(yaml.safe_load(yaml.safe_dump(recipe)))
    assert json.loads((folder / "run.json").read_text())["model"]["kind"] == "encoder_decoder"
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 2 and all({"prompt", "before", "after"} <= set(sample) for sample in samples)
    assert "loss" in json.loads((folder / "evaluation.json").read_text())["rows"][0]
    AutoModelForSeq2SeqLM.from_pretrained(folder / "model")


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="encoder–decoder are rows of their own"):
        trainer(tmp_path / "run", layout="trees")


def test_a_signal_that_it_has_not_is_refused_before_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="token_states"):
        trainer(tmp_path / "run", data="no-such-file.jsonl", objective="sparsepo")
