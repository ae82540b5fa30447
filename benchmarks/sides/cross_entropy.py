"""Supervised steps on the same pairs: what a step costs that compares nothing and has no reference."""

from __future__ import annotations

import json
import tempfile
import time

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from benchmarks.measure import StepClock, peak_bytes
from benchmarks.settings import Round, Settings, digest


def forests(name: str, settings: Settings) -> Round:
    """Minus the mean log-probability of the response tokens, on the rows that the preference trainer makes,
    in a bare loop: forward, backward, clipping, fused AdamW."""
    from benchmarks.sides.prefero_dpo import arguments
    from prefero.models.causal.scoring import Language
    from prefero.training.trainer import PreferenceTrainer

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = PreferenceTrainer(
            str(settings.model),
            str(settings.pairs),
            objective="simpo",
            args=arguments(settings, f"{scratch}/run"),
        )
        loader, plan = iter(trainer.get_train_dataloader()), trainer.plan
    assert plan is not None
    model = trainer.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0, fused=True)
    began = time.perf_counter()
    clock, losses = StepClock(), []
    for _ in range(plan.steps_per_epoch):
        row_forests = [next(loader).inputs for _ in range(plan.micro_batches)]
        tokens = sum(int((forest.cells[""].index >= 0).sum()) for forest in row_forests)
        total = 0.0
        for forest in row_forests:
            loss = -Language.score(model, forest)[""].logps.sum() / tokens
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.tick()
        losses.append(total)
    return Round(
        side=name,
        losses=losses,
        step_seconds=clock.seconds,
        cpu_seconds=clock.cpu_seconds,
        setup_seconds=began - started,
        peak_bytes=peak_bytes(),
        tokens="",
    )


def padded_rows(name: str, settings: Settings) -> Round:
    """``transformers.Trainer`` on prompt and response as one row each, padded, labels on the response."""
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(settings.model)
    rows, ids = [], []
    for line in settings.ordered.read_text().splitlines():
        pair = json.loads(line)
        prompt = tokenizer(pair["prompt"])["input_ids"]
        responses = [
            [*tokenizer(pair[role])["input_ids"], tokenizer.eos_token_id] for role in ("chosen", "rejected")
        ]
        ids.append((prompt, *responses))
        rows += [
            {"input_ids": prompt + response, "labels": [-100] * len(prompt) + response}
            for response in responses
        ]
    clock = StepClock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32),
            args=TrainingArguments(
                output_dir=scratch,
                per_device_train_batch_size=2 * settings.pairs_per_step,
                num_train_epochs=1,
                learning_rate=settings.learning_rate,
                lr_scheduler_type="constant",
                train_sampling_strategy="sequential",
                use_cpu=True,
                logging_steps=settings.logging_steps,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=settings.seed,
            ),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        clock.watch(trainer)
        trainer.train()
    return Round(
        side=name,
        losses=clock.losses,
        step_seconds=clock.seconds,
        cpu_seconds=clock.cpu_seconds,
        setup_seconds=clock.began - started,
        peak_bytes=peak_bytes(),
        tokens=digest(ids),
    )
