"""The benchmark harness: its arithmetic by hand, and every side on a model of a few thousand weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import sharing, workload
from benchmarks.measure import Spread, machine, peak_bytes
from benchmarks.rounds import cpu_per_step, loss_difference, peak, ratio, speeds
from benchmarks.settings import Round, Settings, digest
from benchmarks.small_models import llama
from benchmarks.tables import machine_note, table, verdict
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError

ONE = Round(
    side="a",
    losses=[0.7, 0.5],
    step_seconds=[2.0, 6.0],
    cpu_seconds=[3.0, 9.0],
    setup_seconds=1.0,
    peak_bytes=10,
    tokens="x",
)
OTHER = replace(ONE, side="b", losses=[0.7, 0.4], step_seconds=[1.0, 1.0], peak_bytes=30)


def example(prompt: int, *responses: int) -> TokenExample:
    context = np.arange(1, prompt + 1)
    cells = tuple(
        Cell(context, np.arange(length) + 1000 * (number + 1)) for number, length in enumerate(responses)
    )
    return TokenExample(cells, columns={}, index=0)


def test_speed_is_pairs_over_the_time_of_all_timed_steps() -> None:
    assert speeds([ONE, OTHER], Settings(Path("."))) == [8 * 2 / 8.0, 8 * 2 / 2.0]
    assert cpu_per_step(ONE) == 6.0


def test_ratios_are_taken_round_by_round() -> None:
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == Spread(median=2.0, lowest=1.0, highest=3.0)


def test_the_worst_round_and_step_count_for_memory_and_agreement() -> None:
    assert peak([ONE, OTHER]) == 30
    assert loss_difference([ONE, ONE], [ONE, OTHER]) == pytest.approx(0.1)


def test_a_side_that_lost_a_step_is_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        loss_difference([ONE], [replace(ONE, losses=[0.7])])


def test_token_digest_depends_on_ids_order_and_sides() -> None:
    pairs = [([1, 2], [3], [4]), ([1], [2, 3], [4])]
    assert digest(pairs) == digest([(np.array([1, 2]), np.array([3]), np.array([4])), pairs[1]])
    different = [pairs[::-1], [([1, 2], [4], [3]), pairs[1]], [([1], [2, 3], [4]), pairs[1]]]
    assert digest(pairs) not in {digest(each) for each in different}


def test_peak_memory_sees_what_was_freed_again() -> None:
    before = peak_bytes()
    block = np.ones(before // 8 + 2**23)
    del block
    assert peak_bytes() >= before + 2**25


def test_cost_model_on_the_papers_example() -> None:
    """Prompt 4, responses 3 and 2: 49 attention pairs in two rows, 39 in a tree."""
    pair = example(4, 3, 2)
    assert sharing.separate(pair) == sharing.Cost(tokens=13, attention_pairs=49, head_rows=5)
    # The parents of scored tokens: the end of the prompt once for both responses, then 2 and 1 inside.
    assert sharing.shared(pair) == sharing.Cost(tokens=9, attention_pairs=39, head_rows=4)
    assert sharing.padded_batch([pair], score_prompts=True) == sharing.Cost(14, 56, 12)
    assert sharing.padded_batch([pair, example(1, 1)], score_prompts=False) == sharing.Cost(21, 84, 6)


def test_linear_layers_tend_to_a_factor_of_k_for_long_prompts() -> None:
    long = example(5000, *[10] * 8)
    assert sharing.separate(long).tokens / sharing.shared(long).tokens == pytest.approx(8, rel=0.02)


def test_work_of_a_token_is_the_models_matrices() -> None:
    model = llama(100, hidden=64, layers=2, intermediate=96)
    matrices = sum(w.numel() for name, w in model.named_parameters() if "proj" in name)
    assert sharing.Cost(tokens=1).multiplications(model.config) == matrices
    assert sharing.Cost(head_rows=1).multiplications(model.config) == model.lm_head.weight.numel()


def test_tables_and_verdicts() -> None:
    assert table(["a", "b"], [["x", 1.5]]) == "| a |   b |\n|---|----:|\n| x | 1.5 |"
    assert "met" in verdict("speed", 6.6, 6.5, at_least=True)
    assert "MISSED" in verdict("memory", 0.26, 0.25, at_least=False)
    assert "threads" in machine_note(machine())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[workload.Workload, Settings]:
    folder = tmp_path_factory.mktemp("workload")
    words = ["red", "blue", "warm", "cold", "old", "new", "tall", "flat"]
    rows = [
        {
            "chosen": f"\n\nHuman: Is {a} {b}?\n\nAssistant: Yes, {b} is {a}.",
            "rejected": f"\n\nHuman: Is {a} {b}?\n\nAssistant: No {b} at all, said the {a} one.",
        }
        for a in words
        for b in words
        if a != b
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(folder, learning_rate=1e-3, logging_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "VOCABULARY", 600)
        patch.setattr(
            workload, "llama_of", lambda size, **_: llama(size, hidden=64, layers=2, intermediate=96)
        )
        return workload.prepare(str(data), 24, settings), settings


def test_workload_is_what_it_says(prepared: tuple[workload.Workload, Settings]) -> None:
    made, settings = prepared
    assert (made.found, made.usable, made.pairs) == (56, 56, 24)
    rows = settings.pairs.read_text().splitlines()
    assert sorted(rows) == sorted(settings.ordered.read_text().splitlines())
    assert json.loads(rows[0])["prompt"].endswith("\n\nAssistant:")
    assert json.loads(rows[0])["chosen"].startswith(" Yes")


def test_too_few_pairs_is_said(prepared: tuple[workload.Workload, Settings], tmp_path: Path) -> None:
    _, settings = prepared
    with pytest.raises(PreferoError, match="lower --pairs"):
        workload.prepare(str(settings.folder / "rows.jsonl"), 64, Settings(tmp_path))


def test_all_sides_train_on_the_same_tokens_with_the_same_losses(
    prepared: tuple[workload.Workload, Settings],
) -> None:
    """What makes the speeds comparable: TRL and prefero do the same thing, step by step."""
    from benchmarks.sides import prefero_dpo, trl_dpo

    _, settings = prepared
    reference = trl_dpo.live("trl", settings)
    assert len(reference.losses) == 3
    assert len(reference.step_seconds) == 2
    assert reference.setup_seconds > 0
    assert abs(reference.losses[-1] - reference.losses[0]) > 1e-2
    sides = [trl_dpo.precomputed, prefero_dpo.live, prefero_dpo.cached]
    for round_ in (side("side", settings) for side in sides):
        assert round_.tokens == reference.tokens
        assert loss_difference([round_], [reference]) < 1e-4


def test_bfloat16_side_trains_near_the_float32_one(prepared: tuple[workload.Workload, Settings]) -> None:
    from benchmarks.sides import prefero_dpo

    _, settings = prepared
    exact, rounded = prefero_dpo.cached("a", settings), prefero_dpo.cached_bf16("b", settings)
    assert 0 < loss_difference([rounded], [exact]) < 0.02


def test_supervised_sides_agree_about_cross_entropy(prepared: tuple[workload.Workload, Settings]) -> None:
    """Both are the mean over the same response tokens, so the padded and the packed loop learn alike."""
    from benchmarks.sides import cross_entropy

    _, settings = prepared
    packed, padded = cross_entropy.forests("a", settings), cross_entropy.padded_rows("b", settings)
    assert loss_difference([packed], [padded]) < 1e-4
