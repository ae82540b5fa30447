"""Small vision-language models with their processors, made from configurations alone, and images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3Processor,
    Idefics3Processor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from tests.models.vision_language.families import FAMILIES

WORDS = tuple(
    "what colour is this it was red green blue no yes a the square . ? , user assistant system".split()  # noqa: SIM905
)
MARKS = tuple(
    (  # noqa: SIM905
        "<pad> <s> </s> <unk> <image> <turn> <begin> <finish> <video> <fake_token_around_image> <global-img> "
        "<end_of_utterance> <end_image> <row_1_col_1> <row_1_col_2>"
    ).split()
)

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<turn>{{ message['role'] }} "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ eos_token if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant {% endif %}"
)


def words() -> PreTrainedTokenizerFast:
    """A token for every word and mark."""
    vocabulary = {word: place for place, word in enumerate((*MARKS, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix="##")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [m for m in MARKS if m != "<unk>"]})
    return tokenizer


def image(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def llava_processor() -> LlavaProcessor:
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return LlavaProcessor(
        pictures,
        words(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )


def idefics3_processor() -> Idefics3Processor:
    """Images are split into squares of 32 with one of the whole behind them."""
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    template = TEMPLATE.replace("IMAGE", "<image>")
    return Idefics3Processor(pictures, words(), image_seq_len=4, chat_template=template)


class StillsProcessor(Qwen2VLProcessor):
    """Without the part for videos, which needs torchvision."""

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
        self.image_token = "<image>"
        self.video_token = "<video>"
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def qwen2_vl_processor() -> StillsProcessor:
    pictures = Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    )
    template = TEMPLATE.replace("IMAGE", "<begin><image><finish>")
    return StillsProcessor(pictures, words(), chat_template=template)


def gemma3_processor() -> Gemma3Processor:
    tokenizer = words()
    for name, mark in {"boi": "<begin>", "image": "<image>", "eoi": "<end_image>"}.items():
        setattr(tokenizer, f"{name}_token", mark)
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(mark))
    pictures = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    template = TEMPLATE.replace("IMAGE", "<begin>")
    return Gemma3Processor(pictures, tokenizer, image_seq_length=4, chat_template=template)


PROCESSORS: dict[str, Callable[[], Any]] = {
    "llava": llava_processor,
    "idefics3": idefics3_processor,
    "qwen2-vl": qwen2_vl_processor,
    "gemma3": gemma3_processor,
}


def vision_model(family: str, processor: Any) -> PreTrainedModel:
    """A model of the family for the tokens of its processor."""
    tokenizer = processor.tokenizer
    return FAMILIES[family](vocabulary=len(tokenizer), image=tokenizer.convert_tokens_to_ids("<image>"))
