"""EXO: the reward's distribution in the direction in which reinforcement learning seeks it."""

from prefero_lab.papers.experiments.modes import Modes
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

EXO = {"method": "exo_rw", "beta": 0.5, "beta_r": 0.5}
COVERING = {"method": "dpo_rw", "beta": 0.5, "beta_r": 0.5}

PAPER = Paper(
    id="p013",
    title="Towards Efficient Exact Optimization of Language Model Alignment",
    citation="Ji et al., 2024, arXiv 2402.00856",
    adds="DPO matches the reward's distribution in forward KL, which covers all of its modes; EXO in reverse "
    "KL, which seeks one, as reinforcement learning does.",
    methods=("exo_rw", "exo_pref", "dpo_rw"),
    evidence=(
        Claim(
            statement="Where rewards have two modes and policies one, EXO stays on the better mode beside "
            "which it starts, and DPO, from the same start and actions, spreads over both: nearer to the "
            "target in forward KL, further in reverse KL, and with less reward; with scores as with "
            "comparisons.",
            experiment=Modes(),
            arms=(
                START,
                Arm("exo, scores", {"objective": EXO}),
                Arm("dpo, scores", {"objective": COVERING}),
                Arm("exo, pairs", {"objective": {"method": "exo_pref", "beta": 0.5}, "pairs": True}),
                Arm("dpo, pairs", {"objective": {"method": "dpo", "beta": 0.5}, "pairs": True}),
                Arm("exo, scores, from the lower mode", {"objective": EXO, "lower": True}),
                Arm("dpo, scores, from the lower mode", {"objective": COVERING, "lower": True}),
            ),
            expected=(
                Expectation("exo, scores", "dpo, scores", "reward", by=0.5),
                Expectation("exo, scores", "dpo, scores", "deviation", "lower", by=0.2),
                Expectation("exo, scores", "dpo, scores", "reverse kl", "lower", by=0.5),
                Expectation("dpo, scores", "exo, scores", "forward kl", "lower", by=0.2),
                Expectation("exo, scores", "start", "reward", by=0.5),
                Expectation("exo, pairs", "dpo, pairs", "reward", by=0.2),
                Expectation("exo, pairs", "dpo, pairs", "deviation", "lower", by=0.2),
                Expectation(
                    "exo, scores, from the lower mode",
                    "dpo, scores, from the lower mode",
                    "reward",
                    counts=False,
                ),
                Expectation(
                    "dpo, scores, from the lower mode",
                    "exo, scores, from the lower mode",
                    "on the higher mode",
                    counts=False,
                ),
            ),
            refuted_by="a policy as broad, or a reward as low, as DPO's, or one that is nearer in both KLs",
            seconds=10,
        ),
    ),
    note="Too small to tell is the reward with comparisons: with 64 noisy ones a prompt EXO narrows on some "
    "prompts and spreads on others. Seeking is local: from beside the lower mode, EXO stays there.",
)
