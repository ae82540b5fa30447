"""Ra-DPO: risk in the place of the expectation in a token's divergence."""

from prefero.papers.held_out_pairs import HeldOutPairs
from prefero.papers.paper import START, Arm, Claim, Expectation, Paper

STEP_SIZES = {"learning_rate": (1e-3, 2e-3, 4e-3)}

PAPER = Paper(
    id="p114",
    title="Risk-aware Direct Preference Optimization under Nested Risk Measure",
    citation="Zhang et al., 2025, arXiv 2505.20359",
    adds="A risk measure, taken token by token, in the place of the expectation in TDPO's sequential KL, so "
    "that tokens that the policy would hardly write any more weigh more.",
    methods=("ra_dpo2", "ra_dpo1"),
    evidence=(
        Claim(
            statement="At DPO's step size risk-aware DPO has smaller tails of log reference/policy than DPO "
            "and than token-level DPO, on held-out chosen and rejected responses, and is no worse at ranking "
            "its training pairs and in reward.",
            experiment=HeldOutPairs("reviews", pairs=1024, prompts=256),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3}, STEP_SIZES),
                Arm(
                    "tdpo2",
                    {"objective": {"method": "tdpo2", "beta": 0.1, "alpha": 0.5}, "learning_rate": 2e-3},
                ),
                Arm(
                    "ra-dpo2",
                    {"objective": {"method": "ra_dpo2", "beta": 0.1, "alpha": 0.5}, "learning_rate": 2e-3},
                ),
                Arm("ra-dpo1", {"objective": {"method": "ra_dpo1", "beta": 0.1}, "learning_rate": 2e-3}),
            ),
            expected=(
                Expectation("dpo", "start", "gold_reward", counts=False),
                Expectation("ra-dpo2", "dpo", "rejected_tail", "lower", by=0.1),
                Expectation("ra-dpo2", "dpo", "chosen_tail", "lower", by=0.1),
                Expectation("ra-dpo2", "tdpo2", "rejected_tail", "lower"),
                Expectation("ra-dpo2", "tdpo2", "chosen_tail", "lower"),
                Expectation("ra-dpo2", "dpo", "ranked", by=-0.03),
                Expectation("ra-dpo2", "tdpo2", "ranked", by=-0.03),
                Expectation("ra-dpo2", "dpo", "gold_reward", by=-0.03),
                Expectation("ra-dpo2", "tdpo2", "gold_reward", by=-0.03, counts=False),
                Expectation("ra-dpo2", "dpo", "rejected_divergence", "lower", counts=False),
                Expectation("ra-dpo1", "ra-dpo2", "chosen_tail", counts=False),
            ),
            refuted_by="tails as heavy as token-level DPO's, or within 0.1 nats of DPO's, or lighter ones at "
            "the price of training pairs ranked or of reward",
            seconds=215,
            first_seconds=90,
        ),
    ),
    note="The risk is the one that the authors' code computes. The tail is what log reference/policy is on "
    "average in the worst twentieth of the reference's next-token probability. The step size is the best one "
    "for DPO; the first variant is shown beside.",
)
