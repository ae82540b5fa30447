"""Methods in which tokens and segments have their own part."""

from __future__ import annotations

import torch

from prefero.data.spans import differing_tokens
from prefero.feedback.pairing import best_and_worst
from prefero.feedback.segments import key_turns
from prefero.models.signals import TWO_MODELS
from prefero.objectives import Column, PreferenceBatch, TokenLogps, dry_run, log_ratio, method, primary
from prefero.objectives.presets.policy_gradients import GeneralisedAdvantage, token_reward
from prefero.objectives.presets.tokens import surprise_weight
from prefero.objectives.segments import InSegment
from prefero.objectives.signals import forward_kl
from tests.golden.adapters import adapter
from tests.golden.adapters.pairs import comparisons
from tests.golden.batches import (
    batch_of,
    gradients,
    loss_and_gradients,
    padded,
    pairs,
    ragged,
    sides,
    values,
)

SIDES = ("chosen", "rejected")


def column(rows) -> torch.Tensor:
    return padded(rows)[0]


class Logits:
    """Both models' logits on both sides, padded; the policy's take the gradient."""

    def __init__(self, inputs):
        self.policy = [
            [
                torch.tensor(rows, dtype=torch.float64, requires_grad=True)
                for rows in inputs[f"policy_{side}_logits"]
            ]
            for side in SIDES
        ]
        reference = [
            [torch.tensor(rows, dtype=torch.float64) for rows in inputs[f"reference_{side}_logits"]]
            for side in SIDES
        ]
        tokens = [inputs[f"{side}_tokens"] for side in SIDES]
        size = max(len(row) for side in tokens for row in side)
        self.tokens = torch.stack([stacked([torch.tensor(row) for row in side], size) for side in tokens], 1)
        self.mask = torch.stack(
            [stacked([torch.ones(len(row), dtype=torch.bool) for row in side], size) for side in tokens], 1
        )
        self.log_p, self.log_q = (
            torch.stack([stacked([rows.log_softmax(-1) for rows in side], size) for side in model], 1)
            for model in (self.policy, reference)
        )

    def batch(self, objective) -> PreferenceBatch:
        signals = {
            signal: TWO_MODELS[signal.name](self.log_p, self.log_q, dict(signal.options))
            for signal in dry_run(objective).models["policy"]
        }
        policy, reference = (
            logs.gather(-1, self.tokens[..., None])[..., 0] for logs in (self.log_p, self.log_q)
        )
        return PreferenceBatch(
            {"policy": TokenLogps(policy, self.mask, signals), "reference": TokenLogps(reference, self.mask)}
        )

    def gradients(self, loss):
        flat = [rows for side in self.policy for rows in side]
        slopes = [slope.tolist() for slope in torch.autograd.grad(loss, flat, retain_graph=True)]
        half = len(self.policy[0])
        return {"grad_policy_chosen_logits": slopes[:half], "grad_policy_rejected_logits": slopes[half:]}


def stacked(rows, size):
    """Rows of unequal length as one tensor, filled up with zeros."""
    return torch.stack([torch.cat([row, row.new_zeros((size - len(row), *row.shape[1:]))]) for row in rows])


RISKS = {"cvar_code": "released_cvar", "cvar": "cvar", "erm": "entropic"}
ARGUMENTS = {"confidence_level": "confidence", "split_vocab": "split", "risk": "risk"}


def ra_dpo(key, params, inputs):
    arguments = {ARGUMENTS.get(name, name): value for name, value in params.items()}
    arguments["risk"] = RISKS[params["risk"]]
    if params["risk"] == "cvar":
        # of the worst share, which is all of it without any confidence
        arguments["tail"] = 1 - arguments.pop("confidence")
    objective, logits = method(key, **arguments), Logits(inputs)
    batch = logits.batch(objective)
    (risk,) = batch.models["policy"].signals.values()
    totals = torch.where(batch.mask, risk, 0).sum(-1)
    kl = logits.batch(method("tdpo1")).models["policy"].signals[forward_kl()]
    divergences = torch.where(batch.mask, kl, 0).sum(-1)
    ratios = log_ratio().sum()(batch)
    reward = params["beta"] * (ratios + totals)
    return {
        "seq_risk_chosen": totals[:, 0],
        "seq_risk_rejected": totals[:, 1],
        "seq_kl_chosen": divergences[:, 0],
        "seq_kl_rejected": divergences[:, 1],
        "seq_logratio_chosen": ratios[:, 0],
        "seq_logratio_rejected": ratios[:, 1],
        "chosen_reward": reward[:, 0],
        "rejected_reward": reward[:, 1],
        "loss": values(objective, batch),
        **logits.gradients(objective.loss(batch)),
    }


@adapter("p114", "ra_dpo1")
def ra_dpo1(params, inputs):
    return ra_dpo("ra_dpo1", params, inputs)


@adapter("p114", "ra_dpo2")
def ra_dpo2(params, inputs):
    return ra_dpo("ra_dpo2", params, inputs)


@adapter("p116", "tgdpo")
def tgdpo(params, inputs):
    names = {"policy": "policy", "reference": "reference", "guide": "token_reward_model"}
    batch = batch_of({model: sides(inputs, name) for model, name in names.items()})
    objective = method("tgdpo", **params)
    slopes = gradients(primary(objective), batch)
    # a token's weight is its part of the margin: one unit of log-ratio more, β times its weight more
    margins = comparisons(objective, batch).margins
    (pull,) = torch.autograd.grad(margins.sum(), batch.models["policy"].logps)
    chosen, rejected = zip(*ragged(pull / params["beta"], batch.mask), strict=True)
    return {
        "token_weight_chosen": list(chosen),
        "token_weight_rejected": [[-weight for weight in row] for row in rejected],
        "logits": margins[:, 0],
        "loss": values(objective, batch),
        **slopes,
    }


@adapter("p074", "sampo")
def sampo(params, inputs):
    kept = [inputs[f"kept_{side}_positions"] for side in SIDES]
    batch = pairs(inputs)
    noise = torch.full(batch.mask.shape, 0.9, dtype=torch.float64)
    for r, rows in enumerate(kept):
        for e, places in enumerate(rows):
            noise[e, r, places] = 0.1
    batch = PreferenceBatch(batch.models, {"noise": noise})
    objective, averaged = (method(key, **params) for key in ("sampo", "sampo_averaged"))
    compared = averaged.comparisons(batch)
    return {
        **loss_and_gradients(objective, batch),
        "logits": comparisons(objective, batch).margins[:, 0],
        "expected_logits_over_draws": comparisons(method("sampo", **params).eval(), batch).margins[:, 0],
        "averaged_variant_logits": (averaged.scale(compared) * compared.margins)[:, 0],
        "averaged_variant_loss": values(averaged, batch),
    }


@adapter("p025", "dpo_bmc")
def dpo_bmc(params, inputs):
    never = frozenset(inputs["stopword_ids"])
    marks = [
        differing_tokens(chosen, rejected, never)
        for chosen, rejected in zip(inputs["chosen_ids"], inputs["rejected_ids"], strict=True)
    ]
    batch = pairs(inputs, columns={"differs": column(marks) > 0})
    weights = ragged(surprise_weight("policy", params["delta"])(batch), batch.mask)
    chosen, rejected = zip(*weights, strict=True)
    return {
        **loss_and_gradients(method("dpo_bmc", **params), batch),
        "loss_code": values(method("dpo_bmc", reference_weighting="own", **params), batch),
        "chosen_mask": [mark[0].astype(int).tolist() for mark in marks],
        "rejected_mask": [mark[1].astype(int).tolist() for mark in marks],
        "weight_chosen": list(chosen),
        "weight_rejected": list(rejected),
    }


@adapter("p001", "rrpo")
def rrpo(params, inputs):
    spans = column(list(zip(inputs["chosen_spans"], inputs["rejected_spans"], strict=True))).long()
    kl = [[row, []] for row in inputs["chosen_token_kl"]]
    batch = pairs(inputs, columns={"segment": spans})
    divergence = torch.zeros_like(batch.mask, dtype=torch.float64)
    part = column(kl)
    divergence[..., : part.shape[-1]] = part
    policy = batch.models["policy"]
    models = {**batch.models, "policy": TokenLogps(policy.logps, policy.mask, {forward_kl(): divergence})}
    batch = PreferenceBatch(models, batch.columns)
    objective = method("rrpo", **params).double()
    chosen, rejected = (InSegment() * log_ratio()).sum()(batch).T
    return {
        "loss": sum(term.values for term in objective(batch)),
        "span_logratio_chosen": chosen,
        "span_logratio_rejected": rejected,
        **gradients(objective, batch),
    }


@adapter("p001", "rrpo_token_kl")
def rrpo_token_kl(params, inputs):
    policy = [torch.tensor(rows, dtype=torch.float64, requires_grad=True) for rows in inputs["policy_logits"]]
    kl = [
        TWO_MODELS["forward_kl"](
            own.log_softmax(-1), torch.tensor(rows, dtype=torch.float64).log_softmax(-1), {}
        )
        for own, rows in zip(policy, inputs["reference_logits"], strict=True)
    ]
    slopes = torch.autograd.grad(sum(row.sum() for row in kl) / len(kl), policy)
    return {
        "token_kl": [row.tolist() for row in kl],
        "grad_policy_logits": [slope.tolist() for slope in slopes],
    }


def segment_columns(inputs) -> dict[str, torch.Tensor]:
    """Segments and their scores at the tokens, out of token ranges."""
    rows = [
        [
            per_token(
                inputs[f"policy_{side}"][e],
                inputs[f"{side}_segment_spans"][e],
                inputs[f"{side}_segment_scores"][e],
            )
            for side in SIDES
        ]
        for e in range(len(inputs["policy_chosen"]))
    ]
    segment, score = (column([[side[at] for side in example] for example in rows]) for at in range(2))
    return {"segment": segment.long(), "token_score": score}


def per_token(tokens, ranges, numbers):
    segment, score = [0] * len(tokens), [0.0] * len(tokens)
    for index, ((start, stop), number) in enumerate(zip(ranges, numbers, strict=True), 1):
        segment[start:stop] = [index] * (stop - start)
        score[start:stop] = [number] * (stop - start)
    return segment, score


def two_d(objective, inputs):
    batch = pairs(inputs, columns=segment_columns(inputs))
    compared = comparisons(objective, batch)
    target = objective.target(compared) if callable(objective.target) else objective.target
    margins = compared.margins - target
    places = objective.contrast.order(batch)
    met = [(batch.columns["segment"][:, side].gather(-1, first) - 1) for side, first in enumerate(places)]
    return {
        **loss_and_gradients(objective, batch),
        "segment_logits": [row[keep].tolist() for row, keep in zip(margins, compared.mask, strict=True)],
        "selected_pairs": [
            torch.stack([better[keep], worse[keep]], -1).tolist()
            for better, worse, keep in zip(*met, compared.mask, strict=True)
        ],
    }


@adapter("p087", "two_d_dpo")
def two_d_dpo(params, inputs):
    return two_d(method("two_d_dpo", **params), inputs)


@adapter("p087", "robust_two_d_dpo")
def robust_two_d_dpo(params, inputs):
    return two_d(method("robust_two_d_dpo", **params), inputs)


def opa_batch(inputs) -> PreferenceBatch:
    """The three answers, and two of them under the corrupted image."""
    roles = {"gold": "gt", "revised": "rev", "rejected": "gen"}
    shown = {"gold": "gt_masked", "revised": "rev_masked"}

    def scored(names) -> dict:
        return {
            model: list(zip(*(inputs[f"{model}_{name}"] for name in names.values()), strict=True))
            for model in ("policy", "reference")
        }

    gold = [[0.0] * len(row) for row in inputs["policy_gt"]]
    whole = (
        [[1.0] * len(row) for row in inputs["policy_gt"]],
        [[1.0] * len(row) for row in inputs["policy_gen"]],
    )
    score = zip(gold, inputs["rev_sentence_scores"], inputs["gen_sentence_scores"], strict=True)
    weight = zip(whole[0], inputs["rev_image_weights"], whole[1], strict=True)
    columns = {"token_score": column(list(score)), "image_weight": column(list(weight))}
    batch = batch_of(scored(roles), columns, tuple(roles))
    view = batch_of(scored(shown), roles=tuple(shown))
    return PreferenceBatch(batch.models, batch.columns, batch.roles, {"corrupted": view})


OPA = {"copo_coef": "image_coefficient", "anchor_coef": "anchor_coefficient"}
PARTS = ("gt_vs_gen", "rev_vs_gen", "gt_image", "rev_image")


def opa_terms(key, params, batch):
    """The objective, and its terms without their coefficients."""
    arguments = {OPA.get(name, name): value for name, value in params.items()}
    unit = {**arguments, "image_coefficient": 1.0, "anchor_coefficient": 1.0}
    return method(key, **arguments).double(), method(key, **unit).double()(batch)


@adapter("p168", "opa_dpo_sequence")
def opa_dpo(params, inputs):
    batch = opa_batch(inputs)
    objective, terms = opa_terms("opa_dpo", params, batch)
    slopes = gradients(objective, batch)
    return {
        "loss": sum(term.values for term in objective(batch)),
        **dict(zip(PARTS, (term.values for term in terms), strict=False)),
        "anchor": sum(term.values for term in terms[4:]),
        "grad_policy_gt": slopes["grad_policy_gold"],
        "grad_policy_rev": slopes["grad_policy_revised"],
        "grad_policy_gen": slopes["grad_policy_rejected"],
    }


@adapter("p168", "opa_dpo_released_code")
def opa_dpo_released(params, inputs):
    batch = opa_batch(inputs)
    objective, terms = opa_terms("opa_dpo_released", params, batch)
    means = [term.total / term.count for term in terms]
    return {
        "batch_loss": objective.loss(batch),
        **{f"mean_{name}": value for name, value in zip(PARTS, means, strict=False)},
        "mean_anchor": sum(means[4:]),
    }


@adapter("p156", "rto")
def rto(params, inputs):
    single = {
        "policy": inputs["policy"],
        "behaviour": inputs["policy"],
        "reference": inputs["reference"],
        "guide": inputs["dpo_policy"],
    }
    columns = {
        "score": torch.tensor(inputs["terminal_reward"], dtype=torch.float64)[:, None],
        "token_score": column([[row] for row in inputs["values"]]),
    }
    batch = batch_of({name: [[row] for row in rows] for name, rows in single.items()}, columns, roles=())
    reward = token_reward(*(params[name] for name in ("beta1", "clip", "beta2", "beta3")))
    value = Column("token_score")
    advantage = GeneralisedAdvantage(reward, value, params["gamma"], params["gae_lambda"])
    found = {"token_reward": reward, "advantage": advantage, "return": advantage + value}
    return {name: [row for (row,) in ragged(of(batch), batch.mask)] for name, of in found.items()}


@adapter("p050", "sdpo_segment")
def sdpo_segment(params, inputs):
    rows = []
    for e, (first, count) in enumerate(zip(inputs["first_turn"], inputs["num_turns"], strict=True)):
        ranges = [inputs[f"{side}_turn_spans"][e] for side in SIDES]
        turns = key_turns(len(ranges[0]), len(ranges[1]), first, count)
        numbers = [
            [turns.index(turn) + 1 if turn in turns else 0 for turn in range(len(own))] for own in ranges
        ]
        tokens = [inputs[f"policy_{side}"][e] for side in SIDES]
        rows.append([per_token(*side)[1] for side in zip(tokens, ranges, numbers, strict=True)])
    batch, objective = (
        pairs(inputs, columns={"segment": column(rows).long()}),
        method("sdpo_segment", **params),
    )
    return {
        **loss_and_gradients(objective, batch),
        "logits": comparisons(objective, batch).margins[:, 0],
    }


@adapter("p027", "ilr_dpo_pair_selection")
def ilr_dpo_pair_selection(params, inputs):
    chosen, rejected = zip(*map(best_and_worst, inputs["scores"]), strict=True)
    return {"chosen_index": list(chosen), "rejected_index": list(rejected)}
