"""What somebody who knows TRL does by habit, and what it does here: a section of ``docs/trl.md``.

``tests/training/test_habits.py`` has a test for each of them, under its name.
"""

from __future__ import annotations

from typing import NamedTuple


class Habit(NamedTuple):
    """A habit, and what it does here: the setting to use, or the difference."""

    habit: str
    here: str


HABITS: dict[str, Habit] = {
    # rows
    "rows": Habit(
        "Rows of `prompt`, `chosen`, `rejected` as texts or as lists of messages, with the prompt in both "
        "sides or in a field of its own; `prompt`, `completion`, `label` for KTO.",
        "The same. `prefero preview DATA` shows how rows are read, and which columns are not.",
    ),
    "plain_text": Habit(
        "Plain text is trained as it stands, on a chat model too.",
        "On a model with a chat template a plain prompt becomes the user's turn, as it will be asked later. "
        "`data.template: none` trains it as it stands.",
    ),
    "unused_columns": Habit(
        "Columns that the trainer does not know are dropped.",
        "They are listed before training starts; a prompt under another name is found, or asked for: "
        "`data.columns: {prompt: question}`.",
    ),
    "streaming": Habit(
        "An `IterableDataset` is streamed.",
        "It is read once, whole, before training: token ids of preference data are small, and steps are "
        "planned by length.",
    ),
    "long_rows": Habit(
        "`max_length` is 1,024 tokens, and the end is cut off.",
        "`data.max_length` is the model's context. `data.too_long` says what is cut, `cut_response` by "
        "default; the number of rows that were cut is shown.",
    ),
    # models
    "model_by_name": Habit(
        "`model` is a name or a loaded model, `processing_class` its tokenizer.",
        "The same.",
    ),
    "reference_model": Habit(
        "`ref_model` is a loaded model.",
        "`reference=`, as a loaded model or a name. The second argument is the data.",
    ),
    "no_reference_model": Habit(
        "Without `ref_model` a second copy of the model stays in memory.",
        "The log-probabilities of the model as it starts are computed once and kept on disk for all runs.",
    ),
    "peft": Habit(
        "`peft_config=LoraConfig(…)` trains adapters, and the reference is the model without them.",
        "The same; `model.lora: {r: 16}` in a recipe.",
    ),
    "dropout": Habit("Dropout is off.", "The same; `training.dropout: true` leaves it on."),
    "model_init": Habit(
        "Only transformers' own trainer has `model_init`.",
        "`model_init=` makes the model after the seed is set.",
    ),
    # arguments
    "arguments": Habit(
        "`args=DPOConfig(…)`.",
        "`args=PreferenceArguments(…)`, or the same names as arguments of the trainer. What means something "
        "else here is refused by name.",
    ),
    "beta": Habit(
        "`beta` and `loss_type` stand in the configuration.",
        "They belong to the method: `objective={'method': 'dpo', 'beta': 0.1}`.",
    ),
    "batch_size": Habit(
        "`per_device_train_batch_size` × `gradient_accumulation_steps` × processes examples are a step.",
        "`examples_per_step`, 32 by default, on any number of processes. `tokens_per_row` bounds the memory "
        "of a forward pass.",
    ),
    "defaults": Habit(
        "Three epochs, a learning rate of 1e-6 that falls linearly, no warm-up, activation checkpointing.",
        "One epoch, 5e-7 (1e-5 for adapters, or what the paper says), a cosine with a tenth of warm-up, no "
        "activation checkpointing.",
    ),
    "precision": Habit(
        "`bf16=True`.", "`precision='bfloat16'`; `model.dtype` is what the weights are kept in."
    ),
    "activation_checkpointing": Habit(
        "`gradient_checkpointing=True`.", "`activation_checkpointing=True`, its name in transformers 5."
    ),
    "command_line": Habit(
        "`HfArgumentParser(DPOConfig)` reads a command line.",
        "`HfArgumentParser(PreferenceArguments)` does; or `prefero train recipe.yaml key=value`.",
    ),
    # training
    "one_step": Habit(
        "`max_steps=1` tries out a configuration.", "It trains: warm-up leaves a step behind it."
    ),
    "metrics": Habit(
        "`rewards/chosen`, `rewards/rejected`, `rewards/accuracies`, `rewards/margins`, `logps/chosen` and "
        "`logps/rejected` are logged, of held-out data with `eval_` before them.",
        "The same names, of a whole step on all processes, and in `metrics.jsonl` of the run.",
    ),
    "ties": Habit(
        "A pair with equal rewards counts as wrong, so that accuracy is 0 at the first step.",
        "It counts half: accuracy is 0.5 at the first step.",
    ),
    "throughput": Habit(
        "`train_samples_per_second` counts examples.",
        "The same, also where a step has several micro-batches; `tokens_per_second` is in `metrics.jsonl`.",
    ),
    "trackers": Habit(
        "`report_to='wandb'`.",
        "The same; one that is not installed is refused before data are read.",
    ),
    "held_out_sets": Habit(
        "`eval_dataset` is a data set, or several by name.",
        "The same; in a recipe `data.eval` is one, or the share to hold out.",
    ),
    "compute_metrics": Habit(
        "`compute_metrics` gets logits.",
        "It gets the reward, log-probability and length of every response; no logits are kept.",
    ),
    "predict": Habit(
        "`trainer.predict(rows)`.",
        "`trainer.evaluate_examples()` for held-out data, `prefero.evaluate.rewards` for any others; "
        "`predict` is refused with this answer.",
    ),
    "callbacks": Habit(
        "`callbacks=[…]` of transformers, such as `EarlyStoppingCallback`.",
        "The same; `training.early_stopping_patience` in a recipe.",
    ),
    "best_model": Habit(
        "`load_best_model_at_end=True` keeps the best model.",
        "The same; card, summary and report say which step it is of, and are of that model.",
    ),
    "resume": Habit(
        "`trainer.train(resume_from_checkpoint=True)`.",
        "The same, bit for bit, and refused where data, model or settings are other ones; `'auto'` also "
        "starts where there is no checkpoint.",
    ),
    "processes": Habit(
        "`accelerate launch --multi_gpu --num_processes 2 script.py`.",
        "The same, and `torchrun --nproc-per-node 2 -m prefero train …`; a step keeps its examples, and "
        "`run.json` says how many processes there were. Without `--multi_gpu` accelerate starts one process "
        "where it finds no GPUs.",
    ),
    "hyperparameters": Habit(
        "`trainer.hyperparameter_search(…)` of transformers.",
        "The same with Optuna and `model_init`, on one reference cache; `prefero sweep` from a recipe.",
    ),
    "samples": Habit(
        "`generate_during_eval` logs responses.",
        "`samples: {every: 100}` in a recipe: responses to a few prompts before, during and after training, "
        "in the report; with `judge` a win rate too.",
    ),
    # after training
    "save": Habit(
        "`trainer.save_model()` writes the model to the output folder.",
        "The same; `prefero train` writes it to `model/` of the run. `prefero evaluate` and `prefero report` "
        "take the run's folder.",
    ),
    "card": Habit(
        "A model card names TRL and the paper.",
        "It has the method with its equation and paper, base model, data, settings, evaluation with "
        "intervals, and how to cite.",
    ),
    "push": Habit("`push_to_hub=True`.", "The same; the card goes with it."),
    "wrong_name": Habit(
        "A name that is no folder is looked up on the hub.",
        "The same, once; where neither is there, one line says so.",
    ),
}
