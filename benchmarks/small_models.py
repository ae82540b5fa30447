"""A tokenizer from the texts of a data file alone, and a Llama with random weights to its size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prefero.data import Example, tokenize

PAD, END = "<pad>", "<end>"


Texts = list[list[tuple[str, str]]]
"""Per example, the prompt and the text of every response."""


def texts_of(examples: Sequence[Example], roles: tuple[str, ...] = ()) -> Texts:
    """What a model without a chat template reads: prompts and responses of ``roles``, or of all candidates.

    Taken from prefero's own tokenisation, with bytes for tokens.
    """
    single_bytes = train_tokenizer([], vocabulary=0)
    return [
        [
            (
                str(single_bytes.decode(cell.context)),
                str(single_bytes.decode(cell.response, skip_special_tokens=True)),
            )
            for cell in example.cells
        ]
        for example in tokenize(examples, single_bytes, roles=roles)
    ]


def joined(texts: Texts) -> list[str]:
    """Every prompt with each of its responses."""
    return [prompt + response for example in texts for prompt, response in example]


def train_tokenizer(corpus: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most ``vocabulary`` tokens; a small corpus may give fewer."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PAD, eos_token=END)


def llama(
    vocabulary: int, *, hidden: int = 256, layers: int = 4, intermediate: int = 688, max_length: int = 1024
) -> LlamaForCausalLM:
    """A Llama with random weights, heads of 64 and tied embeddings."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
            max_position_embeddings=max_length,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
