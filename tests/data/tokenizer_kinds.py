"""Tokenizers of the kinds that models bring, each trained here in a moment on a few sentences.

``KINDS`` has them by name. :func:`make` gives one the marks of a chat template; :func:`characters` tells
which characters each token is made of, exactly, where the tokenizer's own offsets may leave out spaces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

TEXTS = [
    "The quick brown fox jumps over the lazy dog. What is the capital of France? It is Paris, of course.",
    "Human: how do I bake bread? Assistant: mix flour, water, salt and yeast, wait, and bake it.",
    "Step 1: there are 16 eggs. Step 2: 16 - 3 - 4 = 9. So the answer is 18 dollars a day.",
    "USER: Name a fruit. ASSISTANT: An apple. [INST] Name a colour. [/INST] Red, of course.",
    "user\nassistant\nsystem\nmodel\nassistant\nThe answer\nassistant\nIt is\nassistant\n\nYes",
    "### Instruction:\nAdd.\n\n### Response:\nThe sum is 4.\n\n### Response:\nIt is 5.",
    "Bonjour, ça va? Ünïcödé é ñ 你好 世界 привет 🙂",
]
"""Words stand behind the ends of prompts here, so that merges cross from prompts into responses."""

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
FIRST = [UNKNOWN, BOS, EOS]

LLAMA_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Kind:
    """A tokenizer to be made: ``train`` makes it without special tokens around a text, which ``around`` adds
    (``"<s> $A"``). ``strips`` tells that its marks of a template take the white space behind them."""

    train: Callable[[], Tokenizer]
    around: str = ""
    strips: bool = False

    @property
    def bos(self) -> str | None:
        return BOS if BOS in self.around else None


# Byte-level BPE


def _bytes(
    pre_tokenizer: Any, normalizer: Any = None, post_processor: Any = None, size: int = 480
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=FIRST, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer


def _gpt2(prefix_space: bool = False, regex: bool = True) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=regex)


def _split(pattern: str) -> Any:
    words = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([words, _gpt2(regex=False)])


def _digits() -> Tokenizer:
    return _bytes(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()]))


# SentencePiece

SPACE = "\u2581"


def _dummy(scheme: str) -> tuple[Any, Any]:
    """Normalizer and pre-tokenizer of the four forms in which a dummy space comes before a text."""
    if scheme == "prepend":
        return normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        ), pre_tokenizers.Split(Regex("$^"), "isolated")
    return None, pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme)


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a token for each byte, which it falls back to."""
    state = json.loads(tokenizer.to_str())
    vocab, names = state["model"]["vocab"], [f"<0x{byte:02X}>" for byte in range(256)]
    if isinstance(vocab, dict):
        vocab.update({name: len(vocab) + at for at, name in enumerate(names)})
    else:
        vocab.extend([name, -20.0] for name in names)
    state["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(state))


def _sentencepiece(model: str, scheme: str, fallback: bool = True) -> Tokenizer:
    normalizer, pre_tokenizer = _dummy(scheme)
    trainer: Any
    if model == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, fuse_unk=True))
        trainer = trainers.BpeTrainer(vocab_size=220, special_tokens=FIRST, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=FIRST, unk_token=UNKNOWN, show_progress=False
        )
    # words are not joined in training, whatever the form
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never")
    tokenizer.train_from_iterator(TEXTS[: None if fallback else 4], trainer)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
        state = json.loads(tokenizer.to_str())
        state["pre_tokenizer"] = None
        tokenizer = Tokenizer.from_str(json.dumps(state))
    return _with_bytes(tokenizer) if fallback else tokenizer


def _gemma() -> Tokenizer:
    """Spaces are marked, none is added, and words are cut behind spaces."""
    tokenizer = _sentencepiece("bpe", "never")
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


def _t5() -> Tokenizer:
    """Runs of spaces become one, and compatible characters the usual one."""
    tokenizer = _sentencepiece("unigram", "always", fallback=False)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    return tokenizer


# Words and characters


def _wordpiece(lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=FIRST, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _words(pre_tokenizer: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.WordLevelTrainer(special_tokens=FIRST, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _letters() -> Tokenizer:
    return _words(pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"))


class SlowWords(PreTrainedTokenizer):
    """Words with the space before them, white space and single marks, in Python: it gives no offsets."""

    def __init__(self, **options: Any) -> None:
        words = sorted({word for text in TEXTS[:3] for word in self._tokenize(text)})
        letters = sorted({letter for text in TEXTS for letter in text} - {*words} | {"\n", "\n\n"})
        self.words = {word: number for number, word in enumerate([*FIRST, *words, *letters])}
        self.names = {number: word for word, number in self.words.items()}
        super().__init__(unk_token=UNKNOWN, **options)

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return {**self.words, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **options: Any) -> list[str]:
        return re.findall(r" ?\w+|\n+|\s|[^\w\s]", text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.get(token, self.words[UNKNOWN])

    def _convert_id_to_token(self, index: int) -> str:
        return self.names.get(index, UNKNOWN)


SLOW = "slow"

KINDS: dict[str, Kind] = {
    "bytes": Kind(lambda: _bytes(_gpt2())),
    "bytes-trimmed": Kind(lambda: _bytes(_gpt2(), post_processor=processors.ByteLevel(trim_offsets=True))),
    "bytes-space": Kind(lambda: _bytes(_gpt2(prefix_space=True))),
    "bytes-space-trimmed": Kind(
        lambda: _bytes(_gpt2(prefix_space=True), post_processor=processors.ByteLevel(trim_offsets=True))
    ),
    "bytes-across": Kind(lambda: _bytes(_gpt2(regex=False), size=700)),
    "bytes-across-bos": Kind(lambda: _bytes(_gpt2(regex=False), size=900), f"{BOS} $A"),
    "bytes-bos": Kind(lambda: _bytes(_gpt2()), f"{BOS} $A"),
    "bytes-bos-eos": Kind(lambda: _bytes(_gpt2()), f"{BOS} $A {EOS}"),
    "bytes-nfc": Kind(lambda: _bytes(_split(LLAMA_WORDS), normalizers.NFC())),
    "bytes-llama": Kind(lambda: _bytes(_split(LLAMA_WORDS)), f"{BOS} $A"),
    "bytes-digits": Kind(_digits),
    "bytes-strips": Kind(lambda: _bytes(_gpt2()), strips=True),
    "sp-bpe-prepend": Kind(lambda: _sentencepiece("bpe", "prepend"), f"{BOS} $A"),
    "sp-bpe-always": Kind(lambda: _sentencepiece("bpe", "always"), f"{BOS} $A"),
    "sp-bpe-first": Kind(lambda: _sentencepiece("bpe", "first"), f"{BOS} $A"),
    "sp-bpe-never": Kind(lambda: _sentencepiece("bpe", "never"), f"{BOS} $A"),
    "sp-bpe-prepend-unknown": Kind(lambda: _sentencepiece("bpe", "prepend", fallback=False)),
    "sp-bpe-always-unknown": Kind(lambda: _sentencepiece("bpe", "always", fallback=False)),
    "sp-bpe-first-strips": Kind(lambda: _sentencepiece("bpe", "first"), f"{BOS} $A", strips=True),
    "sp-unigram-prepend": Kind(lambda: _sentencepiece("unigram", "prepend"), f"{BOS} $A {EOS}"),
    "sp-unigram-always": Kind(lambda: _sentencepiece("unigram", "always")),
    "sp-unigram-first": Kind(lambda: _sentencepiece("unigram", "first"), f"{BOS} $A"),
    "sp-unigram-never": Kind(lambda: _sentencepiece("unigram", "never")),
    "sp-unigram-always-unknown": Kind(
        lambda: _sentencepiece("unigram", "always", fallback=False), f"{BOS} $A"
    ),
    "gemma": Kind(_gemma, f"{BOS} $A"),
    "t5": Kind(_t5, f"$A {EOS}"),
    "wordpiece": Kind(lambda: _wordpiece(True), f"{BOS} $A {EOS}"),
    "wordpiece-cased": Kind(lambda: _wordpiece(False)),
    "words": Kind(lambda: _words(pre_tokenizers.WhitespaceSplit())),
    "words-and-marks": Kind(lambda: _words(pre_tokenizers.Whitespace()), f"{BOS} $A"),
    "letters": Kind(_letters),
    SLOW: Kind(lambda: Tokenizer(models.BPE())),
}


@cache
def _trained(kind: str) -> str:
    return KINDS[kind].train().to_str()


@cache
def make(kind: str, marks: tuple[str, ...] = (), eos: str = EOS, template: str | None = None) -> Any:
    """A tokenizer of the kind that never splits ``marks``."""
    spec = KINDS[kind]
    names = {"bos_token": spec.bos, "eos_token": eos}
    names = {name: token for name, token in names.items() if token}
    made: Any
    if kind == SLOW:
        made = SlowWords(**names)
    else:
        backend = Tokenizer.from_str(_trained(kind))
        if spec.around:
            special = [(token, backend.token_to_id(token)) for token in (BOS, EOS)]
            backend.post_processor = processors.TemplateProcessing(single=spec.around, special_tokens=special)
        made = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    added = [AddedToken(mark, rstrip=spec.strips, normalized=False, special=True) for mark in marks]
    made.add_tokens(added, special_tokens=True)
    made.chat_template = template
    return made


def characters(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The tokens of a text, and for each the place of its first character and of the one after its last."""
    if not tokenizer.is_fast:
        pieces, places, at = tokenizer.tokenize(text), [], 0
        assert "".join(pieces) == text
        for piece in pieces:
            places.append((at, at + len(piece)))
            at += len(piece)
        return tokenizer(text, add_special_tokens=False)["input_ids"], places
    encoded = tokenizer(text, add_special_tokens=False)
    return encoded["input_ids"], _exactly(tokenizer).encode(text, add_special_tokens=False).offsets


@cache
def _exactly(tokenizer: Any) -> Tokenizer:
    """The tokenizer without its post-processor, which takes spaces out of offsets."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["post_processor"] = None
    return Tokenizer.from_str(json.dumps(state))
