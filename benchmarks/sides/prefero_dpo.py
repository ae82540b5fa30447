"""prefero's PreferenceTrainer with DPO: the reference scored every step, or once into the disk cache.

Used from Python, as TRL's trainer is; the command line would also set the allocator to keep freed memory.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from transformers.trainer_utils import SchedulerType

from benchmarks.measure import StepClock, peak_bytes
from benchmarks.settings import Round, Settings, digest
from prefero.models.causal.scoring import Language
from prefero.reference.providers import ReferenceSpec
from prefero.training.config import PreferenceArguments
from prefero.training.trainer import PreferenceTrainer


def live(name: str, settings: Settings) -> Round:
    return _run(name, settings, cache=False)


def cached(name: str, settings: Settings) -> Round:
    return _run(name, settings, cache=True)


def live_bf16(name: str, settings: Settings) -> Round:
    return _run(name, settings, cache=False, bf16=True)


def cached_bf16(name: str, settings: Settings) -> Round:
    return _run(name, settings, cache=True, bf16=True)


def arguments(settings: Settings, folder: str, *, bf16: bool = False) -> PreferenceArguments:
    return PreferenceArguments(
        output_dir=folder,
        examples_per_step=settings.pairs_per_step,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SchedulerType.CONSTANT,
        warmup_steps=0,
        max_length=settings.max_length,
        precision="bfloat16" if bf16 else "float32",
        use_cpu=True,
        logging_steps=settings.logging_steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
    )


def _run(name: str, settings: Settings, *, cache: bool, bf16: bool = False) -> Round:
    started = time.perf_counter()
    clock = StepClock()
    with tempfile.TemporaryDirectory() as scratch:
        reference = (
            ReferenceSpec("cached", cache=Path(scratch) / "cache") if cache else ReferenceSpec("frozen")
        )
        trainer = PreferenceTrainer(
            str(settings.model),
            str(settings.pairs),
            objective={"method": "dpo", "beta": settings.beta},
            args=arguments(settings, f"{scratch}/run", bf16=bf16),
            reference=reference,
        )
        clock.watch(trainer)
        plan = trainer.plan
        assert plan is not None
        tokens = digest(
            (chosen.context, chosen.response, rejected.response)
            for step in plan.steps(0)
            for chosen, rejected in (trainer.train_dataset[i].cells for i in step)
        )
        trainer.train()
    return Round(
        side=name,
        losses=clock.losses,
        step_seconds=clock.seconds,
        cpu_seconds=clock.cpu_seconds,
        setup_seconds=clock.began - started,
        peak_bytes=peak_bytes(),
        tokens=tokens,
        notes={"layout": Language.adapt(trainer.model), "rows per step": plan.micro_batches},
    )
