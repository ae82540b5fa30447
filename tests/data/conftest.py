"""Tokenizers made here: a byte-level BPE as base models have it, and the same with chat templates."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "The quick brown fox jumps over the lazy dog. What is the capital of France? It is Paris, of course.",
    "Human: how do I bake bread? Assistant: mix flour, water, salt and yeast, wait, and bake it.",
    "Step 1: there are 16 eggs. Step 2: 16 - 3 - 4 = 9. So the answer is 18 dollars a day.",
]

CHATML = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if quiet %}(quiet) {% endif %}{% endif %}"
)

LLAMA = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message.role }}<|stop|>\n\n"
    "{{ message.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)

FORGETFUL = (
    "{% for message in messages %}[{{ message.role }}]"
    "{% if message.role == 'assistant' %}{{ message.content.split('</think>')[-1] }}<|eot|>"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]<think>{% endif %}"
)

STRICT = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user and assistant') }}{% endif %}"
    "<{{ message.role }}>{{ message.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|stop|>", "<|eot|>"]

MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


@pytest.fixture(scope="session")
def trained() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer.to_str()


@pytest.fixture(scope="session")
def make_tokenizer(trained: str) -> MakeTokenizer:
    """A tokenizer without pad token; ``bos`` makes it put a start token before a text, as Llama's does."""

    def make(template: str | None = None, *, bos: bool = False, **tokens: str) -> PreTrainedTokenizerFast:
        backend = Tokenizer.from_str(trained)
        if bos:
            backend.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))]
            )
            tokens["bos_token"] = "<s>"
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **{"eos_token": "</s>", **tokens})
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def base(make_tokenizer: MakeTokenizer) -> PreTrainedTokenizerFast:
    return make_tokenizer(bos=True)


@pytest.fixture(scope="session")
def chatml(make_tokenizer: MakeTokenizer) -> PreTrainedTokenizerFast:
    return make_tokenizer(CHATML, eos_token="<|im_end|>")


@pytest.fixture(scope="session")
def llama(make_tokenizer: MakeTokenizer) -> PreTrainedTokenizerFast:
    return make_tokenizer(LLAMA, bos=True, eos_token="<|eot|>")


@pytest.fixture(scope="session")
def real_data() -> Path:
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("PREFERO_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"the real preference data are not in {folder} (set PREFERO_DATA)")
    return folder
