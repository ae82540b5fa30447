"""TRL's DPOTrainer, as its users run it: the reference scored every step, or once before training."""

from __future__ import annotations

import tempfile
import time

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from benchmarks.measure import StepClock, peak_bytes
from benchmarks.settings import Round, Settings, digest

PARTS = ("prompt", "chosen", "rejected")


def live(name: str, settings: Settings) -> Round:
    return _run(name, settings, precompute=False)


def precomputed(name: str, settings: Settings) -> Round:
    return _run(name, settings, precompute=True)


def _run(name: str, settings: Settings, *, precompute: bool) -> Round:
    started = time.perf_counter()
    clock = StepClock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32),
            args=DPOConfig(
                output_dir=scratch,
                per_device_train_batch_size=settings.pairs_per_step,
                num_train_epochs=1,
                learning_rate=settings.learning_rate,
                lr_scheduler_type="constant",
                beta=settings.beta,
                max_length=settings.max_length,
                precompute_ref_log_probs=precompute,
                train_sampling_strategy="sequential",
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                logging_steps=settings.logging_steps,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=settings.seed,
            ),
            train_dataset=load_dataset(
                "json", data_files=str(settings.ordered), split="train", cache_dir=f"{scratch}/datasets"
            ),
            processing_class=AutoTokenizer.from_pretrained(settings.model),
        )
        clock.watch(trainer)
        tokens = digest(zip(*(trainer.train_dataset[f"{part}_ids"] for part in PARTS), strict=True))  # type: ignore[index]
        trainer.train()
    return Round(
        side=name,
        losses=clock.losses,
        step_seconds=clock.seconds,
        cpu_seconds=clock.cpu_seconds,
        setup_seconds=clock.began - started,
        peak_bytes=peak_bytes(),
        tokens=tokens,
    )
