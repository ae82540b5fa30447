"""Differential information: which rejected responses make the log-ratio the right reward."""

from prefero_lab.papers.experiments.information import Information
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

DPO = {"method": "dpo", "beta": 0.7}

PAPER = Paper(
    id="p107",
    title="Differential Information Distribution: A Bayesian Perspective on Direct Preference Optimization",
    citation="Won et al., 2025, arXiv 2505.23761",
    adds="What turns the reference into a policy is a distribution of its own; where preferences encode it, "
    "the log-ratio is the one reward that recovers the policy, and says where rejected responses should "
    "come from.",
    methods=("dpo",),
    evidence=(
        Claim(
            statement="If chosen responses come from the reference and rejected ones from "
            "π_ref (π_ref/π*)^β, DPO recovers π*; another β, another reward or other rejected responses do "
            "not. Chosen responses become less likely on the way.",
            experiment=Information(),
            arms=(
                START,
                Arm("target", {"target": True}),
                Arm("dpo", {"objective": DPO}),
                Arm("dpo, twice β", {"objective": {"method": "dpo", "beta": 1.4}}),
                Arm("without a reference", {"objective": {"method": "cpo", "beta": 0.7, "lam": 0.0}}),
                Arm("orpo", {"objective": {"method": "orpo"}}),
                Arm("dpo, uniform rejected", {"objective": DPO, "rejected": "uniform"}),
            ),
            expected=(
                Expectation("dpo", "target", "divergence", "lower", by=-1e-6),
                *(
                    Expectation("dpo", other, "divergence", "lower", by=1e-3)
                    for other in ("dpo, twice β", "without a reference", "orpo", "dpo, uniform rejected")
                ),
                Expectation("dpo", "start", "chosen_log_ratio", "lower", by=0.05),
            ),
            refuted_by="a policy further than a millionth of a nat from the target; one as near to it with "
            "another reward, strength or rejected responses; or chosen responses that stay as likely",
            seconds=15,
        ),
    ),
    note="Twelve responses, unlimited pairs, losses minimised to rounding. That low entropy of the "
    "differential information reinforces and high entropy smooths, which the paper shows with language "
    "models and a projected gradient of DPO, is not tested here.",
)
