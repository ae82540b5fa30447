"""DRPO: right if either the reference or the preference model is."""

from prefero_lab.papers.experiments.doubly_robust import Estimates, Policies
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

SETTINGS = {
    "both right": {"reference": "right", "preference": "right"},
    "wrong preferences": {"reference": "right", "preference": "wrong"},
    "wrong reference": {"reference": "wrong", "preference": "right"},
    "both wrong": {"reference": "wrong", "preference": "wrong"},
}
DRPO = {"method": "drpo", "baseline": 0.5}
DPO = {"method": "dpo", "beta": 0.1}

PAPER = Paper(
    id="p054",
    title="Doubly Robust Alignment for Large Language Models",
    citation="Xu et al., 2025, arXiv 2506.01183",
    adds="An estimate of how often a policy wins that is right if either the preference model or the "
    "reference is, and a method that raises it; no reward has to explain the preferences.",
    methods=("drpo",),
    evidence=(
        Claim(
            statement="With the reference or the preferences wrong, but not both, the doubly robust "
            "estimate of a policy's win rate comes closer to the truth with more comparisons; with both "
            "wrong it stays off.",
            experiment=Estimates(),
            arms=tuple(
                Arm(f"{name}, {pairs} pairs", {**settings, "pairs": pairs})
                for name, settings in SETTINGS.items()
                for pairs in (30, 3000)
            ),
            expected=(
                *(
                    Expectation(f"{name}, 3000 pairs", f"{name}, 30 pairs", "error", "lower", by=0.03)
                    for name in list(SETTINGS)[:3]
                ),
                *(
                    Expectation(f"{name}, 3000 pairs", "both wrong, 3000 pairs", "error", "lower", by=0.05)
                    for name in list(SETTINGS)[:3]
                ),
                Expectation("both wrong, 3000 pairs", "both wrong, 30 pairs", "error", "lower", counts=False),
            ),
            refuted_by="an error that a hundred times the comparisons leave, with one of the two right, or "
            "that is as small with neither",
            seconds=2,
        ),
        Claim(
            statement="Where no reward explains the preferences, DRPO's policy wins more often than DPO's, "
            "also with a wrong reference, and with wrong preferences more often than one that trusts them; "
            "it takes both to mislead it.",
            experiment=Policies(),
            arms=(
                START,
                *(
                    Arm(f"drpo, {name}", {"objective": DRPO, **settings})
                    for name, settings in SETTINGS.items()
                ),
                Arm("dpo", {"objective": DPO, **SETTINGS["both right"]}),
                Arm("dpo, wrong reference", {"objective": DPO, **SETTINGS["wrong reference"]}),
                Arm(
                    "direct, wrong preferences",
                    {"objective": DRPO, "direct": True, **SETTINGS["wrong preferences"]},
                ),
                Arm("direct", {"objective": DRPO, "direct": True, **SETTINGS["both right"]}),
            ),
            expected=(
                Expectation("drpo, both right", "dpo", "win rate", by=0.01),
                Expectation("drpo, wrong reference", "dpo, wrong reference", "win rate", by=0.01),
                Expectation("drpo, wrong preferences", "direct, wrong preferences", "win rate", by=0.03),
                Expectation("drpo, wrong reference", "drpo, both right", "win rate", by=-0.03),
                Expectation("drpo, wrong preferences", "drpo, both right", "win rate", by=-0.03),
                Expectation("drpo, wrong preferences", "dpo", "win rate", counts=False),
                Expectation("drpo, wrong preferences", "drpo, both wrong", "win rate", counts=False),
                Expectation("drpo, both right", "direct", "win rate", counts=False),
            ),
            refuted_by="a win rate no higher than DPO's with the same reference, or that of wrong "
            "preferences alone, or one that falls by more than 0.03 where one of the two is wrong",
            seconds=50,
            seeds=5,
        ),
    ),
    note="DPO does as well: what it fits orders responses by how often they beat those that pairs were drawn "
    "from, which is what is measured, reward or not. Being right about one of the two keeps the estimate "
    "right; the policy loses up to 0.04 of its win rate, as its corrections are noisy and clipped.",
)
