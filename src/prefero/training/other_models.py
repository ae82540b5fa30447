"""Models beside the policy: loaded as it is, and looked up in the disk cache, whose gaps they fill."""

from __future__ import annotations

from functools import partial

from accelerate import Accelerator
from torch import nn
from tqdm.auto import tqdm

from prefero.kinds.kind import Kind
from prefero.reference.cache import Share
from prefero.reference.resolve import References, fill
from prefero.training.arguments import PreferenceArguments
from prefero.training.ingredients import Ingredients, all_of


def loaded(name: str, kind: Kind, policy: nn.Module, args: PreferenceArguments) -> nn.Module:
    """The model of that name in the policy's precision, on its device, ready to score."""
    model = kind.other(name, next(policy.parameters()).dtype)
    kind.adapt(model, args.layout)
    return model.to(args.device)


def fill_gaps(references: References, made: Ingredients, accelerator: Accelerator) -> None:
    """Score what the cache lacks of the examples, shared among the processes; the models are as they are
    now."""
    args = made.args
    items = [item for data in (made.train, *all_of(made.eval)) for item in data or ()]
    shows = accelerator.is_local_main_process and not args.disable_tqdm
    with accelerator.autocast():
        fill(
            references,
            made.kind,
            items,
            tokens_per_row=made.tokens_per_row,
            device=args.device,
            share=Share(args.process_index, args.world_size, accelerator.wait_for_everyone),
            progress=partial(tqdm, leave=False) if shows else None,
        )
