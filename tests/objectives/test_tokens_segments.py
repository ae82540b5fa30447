"""Segments, key phrases and corrected sentences: which part of a response is rewarded, against which."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from prefero.errors import PreferoError
from prefero.feedback.segments import key_segment, key_turns
from prefero.objectives import Needs, PreferenceBatch, TokenLogps, dry_run, penalty, primary
from prefero.objectives.presets.corrections import severity
from prefero.objectives.quantities import Measured, log_ratio
from prefero.objectives.segments import ByPosition
from prefero.objectives.signals import forward_kl
from prefero.training.metrics import measure
from tests.objectives.batches import batch_for, build, slope_of

PAIR = ("chosen", "rejected")
REFERENCE: dict = {"policy": frozenset(), "reference": frozenset()}
THREE = ("gold", "rejected", "revised")
SEGMENTS = frozenset({"segment", "token_score"})


def opa_needs(*roles: str) -> Needs:
    shown = Needs(("gold", "revised"), frozenset(), REFERENCE)
    return Needs(roles, frozenset({"token_score", "image_weight"}), REFERENCE, {"corrupted": shown})


NEEDS = {
    "sdpo_segment": Needs(PAIR, frozenset({"segment"}), REFERENCE),
    "rrpo": Needs(
        PAIR, frozenset({"segment"}), {"policy": frozenset({forward_kl()}), "reference": frozenset()}
    ),
    "two_d_dpo": Needs(PAIR, SEGMENTS, REFERENCE),
    "robust_two_d_dpo": Needs(PAIR, SEGMENTS, REFERENCE),
    "opa_dpo": opa_needs("rejected", "gold", "revised"),
    "opa_dpo_released": opa_needs("rejected", "gold", "revised"),
}


@pytest.mark.parametrize("key", sorted(NEEDS))
def test_what_a_method_needs(key: str) -> None:
    assert dry_run(build(key)) == NEEDS[key]


def rows(*lists: list[float]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, lists))
    values = torch.tensor([[one + [0.0] * (longest - len(one)) for one in lists]], dtype=torch.float64)
    return values, torch.tensor([[[True] * len(one) + [False] * (longest - len(one)) for one in lists]])


def example(ratios: list[list[float]], roles=PAIR, **columns: list[list[float]]) -> PreferenceBatch:
    """One example with these log-ratios, under a reference of −3 everywhere."""
    values, mask = rows(*ratios)
    reference = torch.full_like(values, -3.0)
    made = {name: rows(*column)[0] for name, column in columns.items()}
    if "segment" in made:
        made["segment"] = made["segment"].long()
    kl = {forward_kl(): torch.full_like(values, 0.25).requires_grad_()}
    models = {
        "policy": TokenLogps((reference + values).requires_grad_(), mask, kl),
        "reference": TokenLogps(reference, mask),
    }
    return PreferenceBatch(models, made, roles)


def loss_of(key: str, batch: PreferenceBatch, **arguments) -> float:
    return float(build(key, **arguments).loss(batch).detach())


class TestKeySegment:
    def test_tokens_outside_the_segment_do_not_matter(self) -> None:
        segment = [[0, 1, 1, 0], [0, 2]]
        one = example([[9.0, 0.3, 0.4, -9.0], [4.0, 0.1]], segment=segment)
        other = example([[-7.0, 0.3, 0.4, 2.0], [0.0, 0.1]], segment=segment)
        assert loss_of("sdpo_segment", one) == loss_of("sdpo_segment", other)
        slope = slope_of(build("sdpo_segment").loss(one), one)
        assert (slope[0, 0] != 0).tolist() == [False, True, True, False]

    def test_a_segment_of_everything_is_dpo(self) -> None:
        batch = example([[0.3, 0.4], [0.1]], segment=[[1, 2], [1]])
        assert loss_of("sdpo_segment", batch) == loss_of("dpo", batch)

    def test_segments_are_as_long_on_either_side(self) -> None:
        assert key_turns(5, 5, 1, 2) == range(1, 3)
        assert key_turns(5, 3, 1, 4) == range(1, 3), "cut to the shorter session"
        assert key_turns(4, 6, 2) == range(2, 4)

    @pytest.mark.parametrize(("chosen", "rejected", "first"), [(3, 2, 2), (1, 5, 1), (3, 3, -1)])
    def test_sessions_without_a_common_segment_are_refused(
        self, chosen: int, rejected: int, first: int
    ) -> None:
        with pytest.raises(PreferoError, match="no equally long segments"):
            key_turns(chosen, rejected, first, 2)

    def test_a_row_ends_with_its_segment_and_marks_its_turns(self) -> None:
        def say(role: str, text: str) -> dict[str, str]:
            return {"role": role, "content": text}

        shared = [say("assistant", "hello"), say("user", "offer?")]
        chosen = [
            *shared,
            say("assistant", "ten"),
            say("user", "fine"),
            say("assistant", "bye"),
            say("user", "."),
        ]
        rejected = [*shared, say("assistant", "never"), say("user", "well"), say("assistant", "no")]
        row = key_segment([say("user", "hi")], chosen, rejected, 1, 1)
        assert [turn["content"] for turn in row["chosen"]] == ["hello", "offer?", "ten"]
        assert [turn["content"] for turn in row["rejected"]] == ["hello", "offer?", "never"]
        assert row["chosen_spans"] == row["rejected_spans"] == [{"turn": 2, "segment": 1}]


class TestKeyPhrases:
    def test_all_tokens_marked_and_no_kl_is_dpo(self) -> None:
        batch = example([[0.3, 0.4], [0.1]], segment=[[1, 1], [2]])
        assert loss_of("rrpo", batch, alpha=0.0) == pytest.approx(loss_of("dpo", batch), rel=1e-12)

    def test_shared_tokens_have_no_ranking_gradient(self) -> None:
        batch = example([[0.3, 0.4, 0.1], [0.1, 2.0]], segment=[[0, 1, 0], [2, 0]])
        slope = slope_of(build("rrpo").loss(batch), batch)
        assert (slope[0] != 0).tolist() == [[False, True, False], [True, False, False]]

    def test_phrases_are_told_apart_from_the_rest_alone(self) -> None:
        ratios = [[0.3, 0.4, 0.1], [0.1, 2.0]]
        one, other = (example(ratios, segment=[[0, 1, number], [1, number]]) for number in (1, 2))
        assert loss_of("rrpo", one) == loss_of("rrpo", other)

    def test_more_shared_words_behind_the_rejected_response_change_nothing(self) -> None:
        short = example([[0.3, 0.4], [0.1]], segment=[[0, 1], [1]])
        long = example([[0.3, 0.4], [0.1, 5.0, 5.0]], segment=[[0, 1], [1, 0, 0]])
        assert loss_of("rrpo", short) == pytest.approx(loss_of("rrpo", long), rel=1e-12)
        assert loss_of("dpo", short) != pytest.approx(loss_of("dpo", long))

    def test_the_kl_holds_every_token_of_the_chosen_response_and_no_other(self) -> None:
        batch = example([[0.3, 0.4], [0.1]], segment=[[0, 1], [1]])
        kl = batch.models["policy"].signals[forward_kl()]
        (slope,) = torch.autograd.grad(build("rrpo", alpha=0.2).loss(batch), kl)
        torch.testing.assert_close(slope, torch.tensor([[[0.2, 0.2], [0.0, 0.0]]]).double())
        alone = float(penalty(Measured(forward_kl()).sum(), "chosen").loss(batch).detach())
        assert loss_of("rrpo", batch, alpha=0.2) == pytest.approx(
            loss_of("sdpo_segment", batch) + 0.2 * alone
        ), "outside the sigmoid, and not multiplied by beta"


RATIOS = [[0.3, 0.4, -0.1, 0.2], [0.1, 2.0, -0.6]]
SEGMENT = [[1, 1, 2, 3], [1, 2, 3]]


class TestTwoDimensions:
    def batch(self, chosen: list[float], rejected: list[float]) -> PreferenceBatch:
        return example(RATIOS, segment=SEGMENT, token_score=[chosen, rejected])

    def test_one_segment_of_score_one_is_dpo(self) -> None:
        ratios = [[0.3, 0.4], [0.1]]
        batch = example(ratios, segment=[[1, 1], [1]], token_score=[[1.0, 1.0], [1.0]])
        assert loss_of("two_d_dpo", batch) == pytest.approx(loss_of("dpo", batch), rel=1e-12)

    def test_scores_scale_like_beta(self) -> None:
        scores = [2.0, 2.0, 3.0, 1.0], [4.0, 1.0, 2.0]
        tripled = [[3 * score for score in side] for side in scores]
        assert loss_of("two_d_dpo", self.batch(*tripled)) == pytest.approx(
            loss_of("two_d_dpo", self.batch(*scores), beta=0.3)
        )

    def test_the_best_of_the_chosen_meet_the_worst_of_the_rejected(self) -> None:
        batch = self.batch([2.0, 2.0, 3.0, 1.0], [4.0, 1.0, 2.0])
        compared = build("two_d_dpo", beta=1.0).comparisons(batch)
        expected = [3 * -0.1 - 1 * 2.0, 2 * 0.7 - 2 * -0.6, 1 * 0.2 - 4 * 0.1]
        assert compared.margins[0, :3].tolist() == pytest.approx(expected)
        assert compared.mask[0].tolist() == [True, True, True, False]

    def test_losses_are_added_over_segments(self) -> None:
        batch = self.batch([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
        assert loss_of("two_d_dpo", batch) == pytest.approx(3 * math.log(2))

    def test_segments_beyond_the_smaller_number_are_left_alone(self) -> None:
        scores = [[2.0, 2.0, 3.0, 1.0], [1.0, 1.0, 1.0]]
        batch = example(RATIOS, segment=[SEGMENT[0], [1, 1, 1]], token_score=scores)
        slope = slope_of(build("two_d_dpo").loss(batch), batch)
        assert (slope[0, 0] != 0).tolist() == [False, False, True, False], "the best one alone"

    def test_tokens_outside_of_segments_and_bad_scores_of_zero_are_not_pushed(self) -> None:
        batch = example(
            RATIOS,
            segment=[[0, 1, 1, 2], [1, 0, 2]],
            token_score=[[9.0, 1.0, 1.0, 2.0], [0.0, 9.0, 1.0]],
        )
        slope = slope_of(build("two_d_dpo").loss(batch), batch)
        assert slope[0, 0, 0] == slope[0, 1, 1] == 0
        assert slope[0, 1, 0] == 0
        assert (slope[0, 0, 1:] < 0).all()

    def test_of_equal_scores_the_earlier_segment_comes_first(self) -> None:
        batch = self.batch([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
        margins = build("two_d_dpo", beta=1.0).comparisons(batch).margins[0]
        assert margins[:3].tolist() == pytest.approx([0.7 - 0.1, -0.1 - 2.0, 0.2 + 0.6])

    def test_numbers_of_segments_may_have_gaps_and_exceed_the_tokens(self) -> None:
        scores = {"token_score": [[2.0, 2.0, 3.0, 1.0], [4.0, 1.0, 2.0]]}
        renamed = example(RATIOS, segment=[[70, 70, 2, 41], [9, 8, 11]], **scores)
        assert loss_of("two_d_dpo", renamed) == loss_of("two_d_dpo", self.batch(*scores["token_score"]))

    @given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.floats(0, 2))
    def test_the_worst_case_is_no_better_than_any_error(self, errors: list[float], epsilon: float) -> None:
        scores = torch.tensor([3.0, 3.0, 2.0, 1.0, 1.0, 2.0, 4.0])
        pairing = self.batch(scores[:4].tolist(), scores[4:].tolist())
        robust = build("robust_two_d_dpo", epsilon=epsilon)
        compared = build("two_d_dpo").comparisons(pairing)
        target = robust.target(robust.comparisons(pairing))
        worst = compared.margins - target
        # sums over the segments as they meet, from the largest chosen and the smallest rejected score on
        sums = torch.tensor([[0.7, -0.1, 0.2], [0.1, 2.0, -0.6]], dtype=torch.float64)
        shift = 0.1 * epsilon * (torch.tensor(errors, dtype=torch.float64).view(2, 3) * sums)
        moved = compared.margins[0, :3] + shift[0] - shift[1]
        assert (worst[0, :3] <= moved + 1e-9).all()

    def test_expected_errors_are_one_draw_for_a_segment_and_average_out(self) -> None:
        batch = self.batch([2.0, 2.0, 3.0, 1.0], [4.0, 1.0, 2.0])
        objective = build("robust_two_d_dpo", robust="expectation", epsilon=0.5)
        plain = build("two_d_dpo").comparisons(batch).margins
        assert "noise" in dry_run(objective).columns
        found = []
        for seed in range(400):
            noise = torch.rand(
                batch.mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            )
            noisy = replace(batch, columns={**batch.columns, "noise": noise})
            found.append(objective.comparisons(noisy).margins.detach())
            noise[0, 0, 1] = 0.999
            torch.testing.assert_close(objective.comparisons(noisy).margins.detach(), found[-1])
        torch.testing.assert_close(torch.stack(found).mean(0), plain.detach(), atol=0.01, rtol=0)


def corrections(spread: float = 0.0, **scores: list[float]) -> PreferenceBatch:
    """Three answers of two tokens, and two of them under the corrupted image."""
    numbers = torch.Generator().manual_seed(0)

    def made(roles: tuple[str, ...]) -> PreferenceBatch:
        ratios = spread * torch.randn(len(roles), 2, generator=numbers, dtype=torch.float64)
        return example(ratios.tolist(), roles)

    batch, view = made(("gold", "revised", "rejected")), made(("gold", "revised"))
    columns = {
        "token_score": rows(*[scores.get(role, [4.0, 4.0]) for role in batch.roles])[0],
        "image_weight": rows(*[[1.0, 1.0]] * 3)[0],
    }
    return replace(batch, columns=columns, views={"corrupted": view})


class TestCorrections:
    def test_an_untrained_policy_costs_log_two_for_every_comparison(self) -> None:
        batch = corrections()
        assert loss_of("opa_dpo", batch) == pytest.approx((2 + 0.2 * 2 + 3) * math.log(2))
        assert loss_of("opa_dpo_released", batch) == pytest.approx((2 + 0.2 * 2 + 4) * math.log(2))

    def test_right_sentences_and_no_other_part_are_two_dpo_losses(self) -> None:
        batch = corrections(spread=2.0)
        both = 0.0
        for role in ("gold", "revised"):
            renamed = replace(batch, roles=tuple("chosen" if one == role else one for one in batch.roles))
            both += loss_of("dpo", renamed)
        found = loss_of("opa_dpo", batch, image_coefficient=0.0, anchor_coefficient=0.0)
        assert found == pytest.approx(both)

    def test_the_true_image_instead_of_a_corrupted_one_costs_log_two(self) -> None:
        batch = corrections(spread=2.0)
        view = replace(batch, columns={}, views={})
        parts = build("opa_dpo")(replace(batch, views={"corrupted": view}))
        assert [float(part.values.detach()) for part in parts[2:4]] == pytest.approx([0.2 * math.log(2)] * 2)

    def test_the_worst_sentence_pulls_two_and_a_half_times_as_hard(self) -> None:
        batch = corrections(revised=[1.0, 4.0], rejected=[2.0, 0.0])
        slope = slope_of(build("opa_dpo", anchor_coefficient=0.0, image_coefficient=0.0).loss(batch), batch)
        assert float(slope[0, 1, 0] / slope[0, 1, 1]) == pytest.approx(2.5)
        weights = severity()(batch)
        assert weights.tolist() == [[[1.0, 1.0], [2.5, 1.0], [2.0, 1.0]]], (
            "without a score a sentence is right"
        )

    def test_the_anchor_lifts_the_correction_and_the_released_one_pulls_it_down(self) -> None:
        batch = corrections()
        for key, sign in (("opa_dpo", -1), ("opa_dpo_released", 1)):
            without = slope_of(build(key, anchor_coefficient=0.0).loss(batch), batch)
            slope = slope_of(build(key).loss(batch), batch) - without
            assert (slope[0, 0] < 0).all()
            assert (sign * slope[0, 1] > 0).all()
        assert not slope[0, 2].any(), "the released anchor leaves the model's own answer alone"

    def test_the_misread_image_weighs_both_images_alike(self) -> None:
        batch = corrections(spread=1.0)
        batch.columns["image_weight"][0, 1, 0] = 3.0
        ratios = [log_ratio()(at)[0, 1] for at in (batch, batch.views["corrupted"])]
        gap = 0.1 * float((torch.tensor([3.0, 1.0]) * (ratios[0] - ratios[1])).sum().detach())
        image = build("opa_dpo")(batch)[3]
        assert float(image.values.detach()) == pytest.approx(0.2 * math.log1p(math.exp(-gap)))

    def test_padding_costs_log_two_where_a_length_is_given(self) -> None:
        batch = corrections(spread=2.0)
        exact, padded = (
            loss_of("opa_dpo_released", batch, padded_length=length, anchor=0.3) for length in (None, 8)
        )
        empty = 2.4 * math.log(2) + 2 * (math.log1p(math.exp(0.3)) + math.log1p(math.exp(-0.3)))
        assert padded == pytest.approx((2 * exact + 6 * empty) / 8)

    def test_positions_meet_whatever_stands_there(self) -> None:
        batch = example([[0.1, 0.2, 0.3], [0.5]])
        margins, exists = ByPosition("chosen", "rejected")(log_ratio(), batch)
        assert margins[0].tolist() == pytest.approx([-0.4, 0.2, 0.3])
        assert exists.all()


def test_the_logged_reward_of_segments_is_that_of_the_response() -> None:
    for key in ("two_d_dpo", "opa_dpo_released"):
        objective = build(key)
        batch = batch_for(objective)
        reward = primary(objective).reward.sum()(batch)
        logged = measure(batch, objective)
        role = batch.roles[0]
        there = batch.mask[:, 0].any(-1)
        torch.testing.assert_close(logged[f"rewards/{role}"].values[there], reward[:, 0][there].detach())
