"""What must not matter: padding, whatever stands in it, and the order of examples, candidates and roles."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prefero.data.schema import SCHEMA
from prefero.objectives import PreferenceBatch, TokenLogps, dry_run
from tests.objectives.batches import KEYS, batch_for, build, changed, slopes, taken

pytestmark = pytest.mark.filterwarnings("ignore:Anomaly Detection")

LISTS = [key for key in KEYS if not dry_run(build(key)).roles]
PAIRS = [key for key in KEYS if set(dry_run(build(key)).roles) == {"chosen", "rejected"}]


def evaluated(key: str, batch: PreferenceBatch, root: PreferenceBatch) -> tuple[Tensor, list[Tensor]]:
    # NaN inside the backward pass is a fault even where a mask stops it: anomaly detection would report it
    with torch.autograd.detect_anomaly(check_nan=True):
        loss = build(key).loss(batch)
        return loss.detach(), slopes(loss, root)


def agree(first: tuple[Tensor, list[Tensor]], second: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(first[0], second[0], rtol=1e-11, atol=1e-12)
    for a, b in zip(first[1], second[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def wider(batch: PreferenceBatch, responses: int, tokens: int, junk: float) -> PreferenceBatch:
    """Padded further, with junk in every place that no mask covers."""

    def of(scored: TokenLogps) -> TokenLogps:
        return TokenLogps(
            more(scored.logps, 3, 0.0),
            more(scored.mask, 3, False),
            {
                signal: more(values, len(signal.axes.split()), junk)
                for signal, values in scored.signals.items()
            },
        )

    def more(values: Tensor, axes: int, fill: float) -> Tensor:
        trailing = [0, 0] * (values.dim() - axes)
        sizes = [0, tokens, 0, responses] if axes == 3 else [0, responses]
        return F.pad(values, [*trailing, *sizes], value=fill)

    def column(name: str, values: Tensor) -> Tensor:
        if SCHEMA[name].axes not in ("example response", "example response token"):
            return values
        return more(values, values.dim(), junk if values.is_floating_point() else 0)

    return PreferenceBatch(
        {name: of(scored) for name, scored in batch.models.items()},
        {name: column(name, values) for name, values in batch.columns.items()},
        batch.roles,
        {
            name: wider(view, 0 if view.roles else responses, tokens, junk)
            for name, view in batch.views.items()
        },
    )


def masked(batch: PreferenceBatch, there: Tensor) -> PreferenceBatch:
    return changed(
        batch, lambda values: values & there if values.dtype == torch.bool and values.dim() == 3 else values
    )


@pytest.mark.parametrize("junk", [7.0, float("nan")])
@pytest.mark.parametrize("key", KEYS)
def test_padding_changes_nothing(key: str, junk: float) -> None:
    batch = batch_for(build(key))
    padded = wider(batch, 0 if batch.roles else 2, 3, junk)
    agree(evaluated(key, batch, batch), evaluated(key, padded, batch))


@pytest.mark.parametrize("key", KEYS)
def test_the_order_of_examples_does_not_matter(key: str) -> None:
    batch = batch_for(build(key))
    agree(evaluated(key, batch, batch), evaluated(key, taken(batch, [4, 0, 5, 2, 1, 3]), batch))


@pytest.mark.parametrize("key", LISTS)
def test_the_order_of_candidates_does_not_matter(key: str) -> None:
    batch = batch_for(build(key))
    order = torch.tensor([2, 0, 3, 1])
    by_response = {
        name: values[:, order] if SCHEMA[name].axes.startswith("example response") else values
        for name, values in batch.columns.items()
    }
    shuffled = changed(
        PreferenceBatch(batch.models, {}, batch.roles, batch.views), lambda values: values[:, order]
    )
    shuffled = PreferenceBatch(shuffled.models, by_response, shuffled.roles, shuffled.views)
    agree(evaluated(key, batch, batch), evaluated(key, shuffled, batch))


@pytest.mark.parametrize("key", PAIRS)
def test_the_order_of_roles_does_not_matter(key: str) -> None:
    batch = batch_for(build(key))
    by_response = {
        name: values.flip(1) if SCHEMA[name].axes.startswith("example response") else values
        for name, values in batch.columns.items()
    }
    flipped = changed(PreferenceBatch(batch.models, {}, batch.roles), lambda values: values.flip(1))
    flipped = PreferenceBatch(flipped.models, by_response, ("rejected", "chosen"), batch.views)
    agree(evaluated(key, batch, batch), evaluated(key, flipped, batch))


@pytest.mark.parametrize("key", PAIRS)
def test_another_role_in_the_batch_changes_nothing(key: str) -> None:
    """A combination may bring a third response; what addresses two of them must not see it."""
    batch = batch_for(build(key))
    extra = changed(
        PreferenceBatch(batch.models, {}, batch.roles), lambda values: torch.cat([values[:, :1], values], 1)
    )
    by_response = {
        name: torch.cat([values[:, :1] + 1, values], 1)
        if SCHEMA[name].axes.startswith("example response")
        else values
        for name, values in batch.columns.items()
    }
    extra = PreferenceBatch(extra.models, by_response, ("gold", *batch.roles), batch.views)
    agree(evaluated(key, batch, batch), evaluated(key, extra, batch))


@pytest.mark.parametrize("key", KEYS)
def test_a_batch_without_responses_has_no_loss_and_no_gradient(key: str) -> None:
    objective = build(key).eval()
    batch = masked(batch_for(objective), torch.tensor(False))
    terms = objective(batch)
    assert all(term.count == 0 for term in terms)
    loss = objective.loss(batch)
    assert loss == 0
    assert all(torch.equal(slope, torch.zeros_like(slope)) for slope in slopes(loss, batch))


@pytest.mark.parametrize("key", KEYS)
def test_training_on_a_batch_without_responses_leaves_the_state_finite(key: str) -> None:
    objective = build(key).train()
    empty = masked(batch_for(objective), torch.tensor(False))
    objective(empty)
    state = copy.deepcopy(objective.state_dict())
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("key", KEYS)
def test_an_example_without_responses_counts_for_nothing(key: str) -> None:
    objective = build(key).eval()
    batch = batch_for(objective)
    there = torch.ones(6, 1, 1, dtype=torch.bool)
    there[2] = False
    blank = masked(batch, there)
    agree(evaluated(key, blank, batch), evaluated(key, taken(batch, [0, 1, 3, 4, 5]), batch))


@pytest.mark.parametrize("key", [key for key in KEYS if not build(key).state_dict()])
def test_nothing_is_made_on_another_device_than_the_batchs(key: str) -> None:
    """On the meta device, which refuses to meet any other. State asks for values, which that device lacks."""
    objective = build(key)
    batch = changed(batch_for(objective), lambda values: values.detach().to("meta"))
    assert objective.loss(batch).device.type == "meta"


@pytest.mark.parametrize("key", KEYS)
def test_single_precision_stays_single_and_agrees(key: str) -> None:
    double, single = build(key), build(key).float()
    batch = batch_for(double)
    narrow = changed(batch, lambda values: values.float() if values.is_floating_point() else values)
    loss = single.loss(narrow)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), double.loss(batch), rtol=1e-4, atol=1e-6)
