"""Small models and data under the names that the documentation uses: a folder named like a hub name is what
such a name means in the folder that it lies in."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from prefero_lab.worlds.bandit import main as bandit

Row = Mapping[str, Any]

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = tuple("a short answer that says what was asked for and why the sea is blue today".split())  # noqa: SIM905


def tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """A token for every byte."""
    marks = ["<|im_end|>", "<|im_start|>", "<pad>"]
    vocabulary = {mark: i for i, mark in enumerate([*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    made = Tokenizer(models.BPE(vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(marks)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=marks[0], pad_token=marks[2], **options)


SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def language(folder: Path) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        **SIZES,
        vocab_size=260,
        max_position_embeddings=4096,
        num_key_value_heads=1,
        head_dim=8,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer(chat_template=TEMPLATE).save_pretrained(folder)


def plain(folder: Path) -> None:
    """Without a chat template."""
    language(folder)
    tokenizer().save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)


def encoder_decoder(folder: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=260, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=2,
        eos_token_id=0, pad_token_id=2,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def reward(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES, vocab_size=260, num_labels=1, eos_token_id=0, pad_token_id=2, bos_token_id=None
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer(chat_template=TEMPLATE).save_pretrained(folder)


def pixels(folder: Path) -> None:
    """A denoiser of 8 × 8 grey pixels that is told a class, with its noise schedule."""
    from diffusers import DDPMScheduler

    from tests.models.diffusion.pipelines import pixel_unet

    pixel_unet().save_pretrained(folder)
    DDPMScheduler(prediction_type="v_prediction", clip_sample=False).save_pretrained(folder)


def stable_diffusion(folder: Path) -> None:
    from tests.models.diffusion.pipelines import pipeline

    pipeline("stable_diffusion").save_pretrained(folder)


def vision_language(folder: Path) -> None:
    from tests.vision import llava_processor, vision_model

    processor = llava_processor()
    vision_model("llava", processor).save_pretrained(folder)
    processor.save_pretrained(folder)


def discrete_diffusion(folder: Path) -> None:
    """Of strings of bits, after two steps."""
    from prefero_lab.worlds.binary_strings import StringsRecipe, start_model

    start = start_model(folder.parent / "cache", StringsRecipe(bits=8, hidden=16, layers=1, steps=2, batch=4))
    shutil.copytree(start.folder, folder)


MODELS: Mapping[str, Callable[[Path], None]] = {
    "Qwen/Qwen3-0.6B": language,
    "Qwen/Qwen2.5-0.5B-Instruct": language,
    "EleutherAI/pythia-410m": plain,
    "meta-llama/Meta-Llama-3-8B-Instruct": language,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": stable_diffusion,
    "runs/digits/model": pixels,
    "runs/shapes/model": vision_language,
    "runs/rewarded/model": encoder_decoder,
    "runs/binary_strings/model": discrete_diffusion,
    "my-org/reward-model": reward,
}


class Texts:
    """Texts of a few words, each drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.generator = random.Random(seed)

    def words(self, least: int = 3, most: int = 9) -> str:
        return " ".join(self.generator.choices(WORDS, k=self.generator.randint(least, most)))

    def turns(self, *texts: str) -> list[dict[str, str]]:
        roles = ("user", "assistant") if len(texts) > 1 else ("assistant",)
        return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def conversations(texts: Texts) -> Row:
    prompt = texts.words()
    chosen, rejected = texts.words(), texts.words() + " no"
    return {
        "chosen": texts.turns(prompt, chosen),
        "rejected": texts.turns(prompt, rejected),
        "score_chosen": texts.generator.uniform(5, 9),
        "score_rejected": texts.generator.uniform(1, 5),
    }


def labelled(texts: Texts) -> Row:
    return {
        "prompt": [{"role": "user", "content": texts.words()}],
        "completion": texts.turns(texts.words()),
        "label": texts.generator.random() < 0.5,
    }


def transcripts(texts: Texts) -> Row:
    prompt = f"\n\nHuman: {texts.words()}\n\nAssistant:"
    return {"chosen": f"{prompt} {texts.words()}", "rejected": f"{prompt} {texts.words()} no"}


def pairs(texts: Texts) -> Row:
    return {"prompt": texts.words(), "chosen": f" {texts.words()}", "rejected": f" {texts.words()} no"}


def scored(texts: Texts) -> Row:
    return {"prompt": texts.words(), "completion": texts.words(), "score": texts.generator.gauss(0, 1)}


def pictures(texts: Texts) -> Row:
    names = [f"{texts.generator.randrange(4)}.png" for _ in range(2)]
    return {"prompt": texts.words(1, 3), "chosen": names[0], "rejected": "4.png"}


def digits(texts: Texts) -> Row:
    return {**pictures(texts), "prompt": texts.generator.randrange(5)}


def seen(texts: Texts) -> Row:
    return {**pairs(texts), "images": [f"{texts.generator.randrange(5)}.png"]}


def bits(texts: Texts) -> Row:
    chosen, rejected = (format(texts.generator.randrange(128) * 2 + last, "08b") for last in (1, 0))
    return {"prompt": "", "chosen": chosen, "rejected": rejected}


DATA: Mapping[str, Callable[[Texts], Row]] = {
    "trl-lib/ultrafeedback_binarized": conversations,
    "trl-lib/kto-mix-14k": labelled,
    "Anthropic/hh-rlhf": transcripts,
    "princeton-nlp/llama3-ultrafeedback-armorm": conversations,
    "data-is-better-together/open-image-preferences-v1-binarized": pictures,
    "runs/digits": digits,
    "runs/shapes": seen,
    "runs/rewarded": scored,
    "runs/binary_strings": bits,
}
"""Folders with a file a split."""

FILES: Mapping[str, Callable[[Texts], Row]] = {
    "pairs.jsonl": pairs,
    "held_out.jsonl": pairs,
    **{f"{name}/held_out.jsonl": row for name, row in DATA.items() if name.startswith("runs/")},
}

JUDGE = '''"""A judge of one's own."""


def score(prompt: str, response: str) -> float:
    return -abs(len(response) - 40)
'''


def make(folder: Path) -> None:
    """Everything, in a folder that commands and Python can be run in."""
    for name, save in MODELS.items():
        save(folder / name)
    for name, row in DATA.items():
        for split, count in (("train", 60), ("test", 8)):
            write(folder / name / f"{split}.jsonl", rows(row, count, split))
    for name, row in FILES.items():
        write(folder / name, rows(row, 8, name))
    bandit(["--pairs", "12", str(folder / "runs" / "bandit")])
    for place in (".", *DATA):
        for number in range(5):
            picture(number).save(folder / place / f"{number}.png")
    (folder / "my_rewards.py").write_text(JUDGE, "utf-8")


def rows(make_row: Callable[[Texts], Row], count: int, name: str) -> Iterator[Row]:
    texts = Texts(sum(name.encode()))
    return (make_row(texts) for _ in range(count))


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8))


def write(file: Path, content: Iterator[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
