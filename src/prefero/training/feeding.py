"""The rows of a data set, collated, as a loader."""

from __future__ import annotations

from torch.utils.data import DataLoader

from prefero.kinds.kind import Dataset, Kind
from prefero.objectives.needs import Needs
from prefero.reference.resolve import References
from prefero.training.arguments import PreferenceArguments
from prefero.training.collate import Collator, DrawnItems
from prefero.training.plan import RankRows


def rows_of(
    kind: Kind,
    data: Dataset,
    rows: RankRows,
    needs: Needs,
    references: References,
    args: PreferenceArguments,
) -> DataLoader:
    """One rank's rows, with the columns that are needed and the log-probabilities that are cached."""
    cached = {name: model.logps for name, model in references.cached.items()}
    return DataLoader(
        DrawnItems(data),
        batch_sampler=rows,
        collate_fn=Collator(kind, needs.columns, views=needs.views, cached=cached, seed=rows.plan.seed),
        num_workers=args.dataloader_num_workers,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
    )
