"""RDPO: learning from few pairs by saying why."""

from prefero_lab.papers.experiments.rationales import RationalesExperiment
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper

STEP_SIZES = {"learning_rate": (3e-4, 1e-3)}
DPO = {"method": "dpo", "beta": 0.1}
RATIONALE = {"objective": {"method": "rationale_dpo", "beta": 0.1, "gamma": 0.1}, "learning_rate": 3e-4}

PAPER = Paper(
    id="p117",
    title="Data-Centric Human Preference Optimization with Rationales",
    citation="Just et al., 2024, arXiv 2407.14477",
    adds="Each pair comes with a rationale that says why its chosen response is better, and the policy "
    "learns to give it, beside preferring that response.",
    methods=("rationale_dpo",),
    evidence=(
        Claim(
            statement="From 32 pairs with a rationale that names what decides them, RDPO orders new answers "
            "better than DPO from the same pairs without.",
            experiment=RationalesExperiment(count=32, epochs=16.0, prompts=128),
            arms=(
                Arm("rdpo", {**RATIONALE, "rationales": "right"}, STEP_SIZES),
                Arm("rdpo, wrong rationales", {**RATIONALE, "rationales": "wrong"}),
                Arm("dpo", {"objective": DPO, "learning_rate": 1e-3}, STEP_SIZES),
                Arm("dpo, rdpo's steps", {"objective": DPO, "learning_rate": 3e-4}),
            ),
            expected=(
                Expectation("rdpo", "dpo", "ranking", by=0.02),
                Expectation("rdpo", "dpo, rdpo's steps", "ranking", counts=False),
                Expectation("rdpo", "rdpo, wrong rationales", "ranking", counts=False),
                Expectation("rdpo", "dpo", "topical", counts=False),
                Expectation("rdpo", "dpo", "kl", "lower", counts=False),
            ),
            refuted_by="as many new answers in the right order without rationales, each with a step size of "
            "its own",
            seconds=65,
            first_seconds=90,
        ),
    ),
    note="Annotators prefer the review that mentions one aspect of the item's category; a rationale that "
    "names another aspect makes the order of new answers worse, so it is the content that helps. What is "
    "gained is the order of answers: the policy itself moves less than DPO's, and mentions the aspect less "
    "often. The start model has never seen two reviews in one prompt: at the step size that is best for DPO, "
    "learning to answer it breaks the policy, so that RDPO's is smaller.",
)
