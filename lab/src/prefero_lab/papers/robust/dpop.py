"""DPO-Positive: pairs that are nearly alike must not make the chosen response less likely."""

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.text import TextExperiment

STEP_SIZES = {"learning_rate": (1e-4, 2e-4, 5e-4, 1e-3)}

PAPER = Paper(
    id="p101",
    title="Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive",
    citation="Pal et al., 2024, arXiv 2402.13228",
    adds="DPO can make chosen responses less likely, above all where the two differ in few tokens; a penalty "
    "inside the sigmoid, active below the reference's likelihood, prevents it.",
    methods=("dpop",),
    evidence=(
        Claim(
            statement="On pairs that differ in one word, DPOP keeps the chosen responses as likely as they "
            "were at a step size at which DPO does not, and gets further than DPO does at its own best one.",
            experiment=TextExperiment("safety", pairs=512, epochs=5.0, prompts=256),
            arms=(
                START,
                Arm(
                    "dpop",
                    {"objective": {"method": "dpop", "beta": 0.1, "lam": 50.0}, "learning_rate": 5e-4},
                    STEP_SIZES,
                ),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-4}, STEP_SIZES),
                Arm(
                    "dpo, dpop's steps", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 5e-4}
                ),
            ),
            expected=(
                Expectation("dpop", "dpo", "gold_reward"),
                Expectation("dpop", "start", "chosen_log_ratio", by=-0.1),
                Expectation("dpo, dpop's steps", "start", "chosen_log_ratio", "lower"),
                Expectation("dpop", "dpo", "chosen_log_ratio", counts=False),
                Expectation("dpop", "dpo, dpop's steps", "gold_reward", counts=False),
                Expectation("dpop", "dpo", "valid", counts=False),
                Expectation("dpop", "dpo", "harm", "lower", counts=False),
                Expectation("dpop", "dpo", "over_refusal", "lower", counts=False),
            ),
            refuted_by="chosen responses that become less likely with DPOP too, or with neither, or a policy "
            "that refuses the harmful and helps with the rest no more often than DPO's, both with step sizes "
            "of their own",
            seconds=100,
            first_seconds=40,
            tuning_seeds=(0,),
        ),
    ),
    note="Both sides of each pair are right answers that differ in their first word, which says nothing, so "
    "that what is harmed is not in the data. Shares of answers that comply with harmful requests (harm), "
    "that refuse others (over_refusal), and that are whole, of either kind (valid), are shown beside. Too "
    "small to tell is only how far DPO falls at DPOP's step size: on every seed it does, but by 4 to 13 "
    "nats.",
)
