"""Stopping in order: what Ctrl-C or a scheduler's SIGTERM asks for is done when the optimizer step ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopInOrder(TrainerCallback):
    """On the first signal, lets the step end, writes a checkpoint and stops; the second one stops at once.

    ``sum`` adds a tensor up over ranks: all stop after the same step, whichever of them was told.
    """

    def __init__(self, sum: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._sum, self._device = sum, device
        self.asked = False
        self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are heard in the main thread alone; elsewhere nothing changes."""
        self.asked = self.stopped = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}

        def hear(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True
            print("stopping after this optimizer step; once more to stop at once", file=sys.stderr)

        try:
            for number in _SIGNALS:
                signal.signal(number, hear)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        asked = self._sum(torch.tensor(float(self.asked), device=self._device))
        if asked > 0 and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = control.should_training_stop = True
