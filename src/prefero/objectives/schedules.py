"""Numbers that change while a run goes on, as quantities of the batch's ``progress``."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.quantities import Quantity


class Linear(Quantity):
    """From ``start`` at the first optimizer step in a straight line to ``end`` after the last."""

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, ""]:
        return batch.lengths.new_tensor(self.start + (self.end - self.start) * batch.progress)
