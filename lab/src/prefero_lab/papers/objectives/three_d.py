"""3D-Properties: DPO drops the rejected response, stops lifting the chosen one, and disperses the rest."""

from __future__ import annotations

from collections.abc import Sequence

from prefero_lab.papers.experiments.unseen import ON_POLICY, UnseenExperiment
from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper
from prefero_lab.papers.text import TextExperiment

DPO = {"method": "dpo", "beta": 0.5}


def slopes(seed: int) -> Sequence[Number]:
    """Gradients of DPO with respect to probabilities, before and after training."""
    import torch

    from prefero.objectives import from_config
    from prefero.theory.vector_field import probability_slopes

    experiment = UnseenExperiment()
    made = experiment.make(seed)
    path = made.mass(experiment.train(made, {"objective": DPO}, seed).model)
    pairs = torch.stack([path["chosen"], path["rejected"]], -1)
    first, last = (probability_slopes(from_config(DPO), pairs[at], pairs[0]) for at in (0, -1))
    ratios = last[:, 1] / last[:, 0]
    return [
        Number.near(
            "slope of the rejected response over that of the chosen one, times π(y_l)/π(y_w)",
            float((ratios * pairs[-1, :, 1] / pairs[-1, :, 0]).mean()),
            -1.0,
        ),
        Number("size of that ratio at the end, least of prompts", float(ratios.abs().min()), low=10.0),
        Number(
            "slope of the chosen response at the end, of that at the start, most of prompts",
            float((last[:, 0] / first[:, 0]).max()),
            high=0.1,
        ),
        Number("probability of the chosen response then", float(path["chosen"][-1].mean()), high=0.6),
    ]


PAPER = Paper(
    id="p059",
    title="3D-Properties: Identifying Challenges in DPO and Charting a Path Forward",
    citation="Yan et al., 2024, arXiv 2406.07327",
    adds="Three flaws of DPO, told from its slopes in probability: the rejected response drops drastically, "
    "the chosen one is no longer lifted, and probability disperses to unseen ones; a β for each side, "
    "imitation, and pairs of the policy's own samples mitigate them.",
    methods=("flex_dpo", "dpo"),
    evidence=(
        Claim(
            statement="On pairs of others, DPO leaves much of the probability to responses that are in no "
            "pair; a smaller β for the rejected response, imitation of the chosen one, and pairs of the "
            "policy's own samples each leave less of it there, and more to the chosen response.",
            experiment=UnseenExperiment(),
            arms=(
                START,
                Arm("dpo", {"objective": DPO}),
                Arm("flex", {"objective": {"method": "flex_dpo", "beta_plus": 0.5, "beta_minus": 0.1}}),
                Arm(
                    "dpo and imitation",
                    {"objective": {**DPO, "plus": {"nll": {"coefficient": 0.1, "tokens": "sum"}}}},
                ),
                Arm("dpo, on-policy", {"objective": DPO, "from": [*ON_POLICY]}),
            ),
            expected=(
                Expectation("flex", "dpo", "chosen", by=0.1),
                Expectation("flex", "dpo", "unseen", "lower", by=0.1),
                Expectation("flex", "dpo", "rejected_log_ratio", by=0.5),
                Expectation("dpo and imitation", "dpo", "chosen", by=0.1),
                Expectation("dpo and imitation", "dpo", "unseen", "lower", by=0.1),
                Expectation("dpo, on-policy", "dpo", "chosen", by=0.2),
                Expectation("dpo, on-policy", "dpo", "unseen", "lower", by=0.2),
                Expectation("dpo", "start", "unseen", counts=False),
                Expectation("flex", "dpo", "kl", "lower", counts=False),
                Expectation("dpo and imitation", "dpo", "kl", "lower", counts=False),
            ),
            refuted_by="chosen responses no more probable by a tenth (on-policy by a fifth), or unseen ones "
            "no less probable by as much, than after as many steps of DPO on pairs of others",
            seconds=40,
            seeds=5,
        ),
        Claim(
            statement="In a language model, DPO makes both responses of its pairs less likely than they "
            "were, the rejected one drastically: their probability goes to responses that are in no pair.",
            experiment=TextExperiment("reviews"),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3}),
            ),
            expected=(
                Expectation("dpo", "start", "chosen_log_ratio", "lower", by=0.5),
                Expectation("dpo", "start", "rejected_log_ratio", "lower", by=2.0),
                Expectation("dpo", "start", "valid", "lower", counts=False),
                Expectation("dpo", "start", "gold_reward", counts=False),
            ),
            refuted_by="chosen responses that are as likely as at the start or more, or rejected ones that "
            "are less likely by under 2 nats",
            seconds=45,
            first_seconds=90,
        ),
        Check(
            statement="DPO's slopes in the two probabilities are as −π(y_w)/π(y_l): the less probable the "
            "rejected response, the less the chosen one is lifted, long before it is certain.",
            run=slopes,
            refuted_by="another ratio, or a chosen response that is still lifted at the end of training",
            seconds=5,
        ),
    ),
    note="In the small network unseen responses lose probability with DPO too, only less; that they gain is "
    "seen in the language model alone. Both remedies go further from the start than DPO. Pairs of the "
    "policy's own samples begin with four tenths on the chosen response, which is most of their advantage.",
)
