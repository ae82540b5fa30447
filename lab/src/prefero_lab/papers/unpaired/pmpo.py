"""PMPO: accepted responses, rejected ones, or both, each on their own."""

from prefero_lab.papers.experiments.single_labels import SingleLabels
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

PAPER = Paper(
    id="p033",
    title="Preference Optimization as Probabilistic Inference",
    citation="Abdolmaleki et al., 2024, arXiv 2410.04166",
    adds="Accepted and rejected responses are each enough to learn from, and need not come in pairs; what "
    "lets rejected ones alone be learnt from is the KL to the reference.",
    methods=("pmpo",),
    evidence=(
        Claim(
            statement="PMPO gains reward from accepted responses alone, from rejected ones alone, and most "
            "from both; without KL to the reference, rejected ones alone make it lose what it gained.",
            experiment=SingleLabels(),
            arms=(
                START,
                Arm("both", {"alpha": 0.5, "beta": 0.5}, {"beta": (0.25, 0.5, 1.0)}),
                Arm("accepted", {"alpha": 1.0, "beta": 0.5}),
                Arm("accepted, own β", {"alpha": 1.0, "beta": 0.0}, {"beta": (0.0, 0.1, 0.5, 1.0)}),
                Arm("rejected", {"alpha": 0.0, "beta": 2.0}),
                Arm("rejected, no KL", {"alpha": 0.0, "beta": 0.0}),
                Arm("both, no KL", {"alpha": 0.5, "beta": 0.0}),
            ),
            expected=(
                Expectation("both", "start", "reward", by=0.1),
                Expectation("accepted", "start", "reward", by=0.1),
                Expectation("rejected", "start", "reward", by=0.1),
                Expectation("both", "accepted", "reward", by=0.02),
                Expectation("both", "accepted, own β", "reward"),
                Expectation("both", "rejected", "reward", by=0.02),
                Expectation("rejected", "rejected, no KL", "reward", by=0.1),
                Expectation("rejected", "rejected, no KL", "coverage", "lower", by=1.0),
                Expectation("both", "both, no KL", "reward", counts=False),
            ),
            refuted_by="labels of one kind that gain nothing, labels of both that gain no more, or rejected "
            "responses that are learnt from without KL as with it",
            seconds=25,
        ),
    ),
    note="At the same β both kinds gain more than accepted responses alone, but those need no KL, and "
    "without it do better still: no label is noisy here. Rejected responses without KL leave the reference "
    "for good (coverage), and on some prompts all the reward goes with it, on most none.",
)
