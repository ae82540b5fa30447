"""A small start model for preference data, made from the data alone.

    python -m examples.start_model --data pairs.jsonl.gz --output runs/start

Trains a byte-level BPE tokenizer on the texts, builds a Llama from a configuration, and fine-tunes it on the
chosen responses with their prompts, by ``transformers.Trainer``. With a real pretrained model none of this is
needed: name it instead.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    DataCollatorForLanguageModeling,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from prefero.data import Example, load_examples, tokenize

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


def fine_tune(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Sequence[str],
    *,
    epochs: float,
    max_length: int,
    learning_rate: float = 1e-3,
    batch_size: int = 16,
    seed: int = 0,
) -> float:
    """Next-token training on whole texts; returns the mean loss of the last tenth of the steps, in nats."""
    rows = [
        {"input_ids": tokenizer(text + END, truncation=True, max_length=max_length)["input_ids"]}
        for text in corpus
    ]
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                num_train_epochs=epochs,
                per_device_train_batch_size=batch_size,
                learning_rate=learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=0.05,
                weight_decay=0.01,
                train_sampling_strategy="group_by_length",
                logging_steps=10,
                save_strategy="no",
                report_to="none",
                seed=seed,
            ),
            train_dataset=rows,
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
            processing_class=tokenizer,
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def make(
    data: str | Path,
    output: Path,
    *,
    roles: tuple[str, ...] = ("chosen",),
    vocabulary: int = 8000,
    hidden: int = 256,
    layers: int = 4,
    max_length: int = 512,
    epochs: float = 3,
    seed: int = 0,
) -> float:
    """Data in, a model with its tokenizer in ``output``; returns the last training loss.

    Tokenizer and model see the responses of ``roles`` alone, or every one for ``()``.
    """
    texts = joined(texts_of(load_examples(data), roles))
    tokenizer = train_tokenizer(texts, vocabulary)
    set_seed(seed)
    model = llama(
        len(tokenizer), hidden=hidden, layers=layers, intermediate=hidden * 43 // 16, max_length=max_length
    )
    loss = fine_tune(model, tokenizer, texts, epochs=epochs, max_length=max_length, seed=seed)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="preference data: a file, a folder or a hub name")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model and its tokenizer")
    parser.add_argument("--role", default="chosen", help="the responses to learn from; 'all' for every one")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512, help="longest text, in tokens")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    loss = make(
        chosen.data,
        chosen.output,
        roles=() if chosen.role == "all" else (chosen.role,),
        vocabulary=chosen.vocabulary,
        hidden=chosen.hidden,
        layers=chosen.layers,
        max_length=chosen.max_length,
        epochs=chosen.epochs,
        seed=chosen.seed,
    )
    print(f"{chosen.output}: {loss:.3f} nats a token at the end of training")


if __name__ == "__main__":
    main()
