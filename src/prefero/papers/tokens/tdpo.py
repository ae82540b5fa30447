"""TDPO: the divergence of the rejected response is held down, token by token."""

from prefero.papers.held_out_pairs import HeldOutPairs
from prefero.papers.paper import START, Arm, Claim, Expectation, Paper

STEP_SIZES = {"learning_rate": (1e-3, 2e-3, 4e-3)}

PAPER = Paper(
    id="p131",
    title="Token-level Direct Preference Optimization",
    citation="Zeng et al., 2024, arXiv 2404.11999",
    adds="The difference of the two responses' sequential KL(reference ‖ policy) stands in DPO's margin, so "
    "that divergence is controlled at every token; its second variant holds down the rejected side alone.",
    methods=("tdpo2", "tdpo1"),
    evidence=(
        Claim(
            statement="At DPO's step size TDPO's second variant diverges less from the reference than DPO "
            "on held-out chosen and rejected responses, and is no worse at ranking its training pairs and in "
            "reward.",
            experiment=HeldOutPairs("reviews", pairs=1024, prompts=256),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3}, STEP_SIZES),
                Arm(
                    "tdpo2",
                    {"objective": {"method": "tdpo2", "beta": 0.1, "alpha": 0.5}, "learning_rate": 2e-3},
                ),
                Arm("tdpo1", {"objective": {"method": "tdpo1", "beta": 0.1}, "learning_rate": 2e-3}),
            ),
            expected=(
                Expectation("dpo", "start", "gold_reward", counts=False),
                Expectation("tdpo2", "dpo", "rejected_divergence", "lower", by=0.5),
                Expectation("tdpo2", "dpo", "chosen_divergence", "lower", by=0.5),
                Expectation("tdpo2", "dpo", "ranked", by=-0.03),
                Expectation("tdpo2", "dpo", "gold_reward", by=-0.03),
                Expectation("tdpo2", "start", "gold_reward", by=0.05),
                Expectation("tdpo2", "dpo", "divergence_gap", "lower", counts=False),
                Expectation("tdpo1", "tdpo2", "chosen_divergence", counts=False),
                Expectation("tdpo2", "dpo", "kl", "lower", counts=False),
            ),
            refuted_by="divergences within half a nat of DPO's, or smaller ones at the price of training "
            "pairs ranked or of reward",
            seconds=170,
            first_seconds=90,
        ),
    ),
    note="The step size is the best one for DPO. The first variant, whose gradient pushes the divergence of "
    "the chosen response up, is shown beside.",
)
