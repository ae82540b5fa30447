"""f-DPO: other divergences than reverse KL, without a normaliser all the same."""

from prefero_lab.papers.experiments.divergences import KINDS, Divergences
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper

METHODS = tuple(
    Arm(f"f-dpo, {kind}", {"objective": {"method": "f_dpo", "divergence": kind}}) for kind in KINDS
)

PAPER = Paper(
    id="p046",
    title="Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence "
    "Constraints",
    citation="Wang et al., 2023, arXiv 2309.16240",
    adds="The normaliser cancels for every divergence whose slope can be inverted, so that DPO need not be "
    "held to its reference by reverse KL.",
    methods=("f_dpo",),
    evidence=(
        Claim(
            statement="With each of four divergences f-DPO comes to the policy with the largest reward less "
            "that divergence, and so gains more for as much of it than methods with another one.",
            experiment=Divergences(),
            arms=(
                *METHODS,
                *(Arm(f"optimum, {kind}", {"optimum": kind}) for kind in KINDS),
            ),
            expected=(
                *(
                    Expectation(f"f-dpo, {kind}", baseline, f"distance {kind}", "lower", by=by)
                    for kind in KINDS
                    for baseline, by in (
                        (f"optimum, {kind}", -1e-3),
                        (f"f-dpo, {'forward' if kind == 'reverse_kl' else 'reverse'}_kl", 0.02),
                    )
                ),
                *(
                    Expectation(f"f-dpo, {kind}", f"f-dpo, {other}", f"reward for {kind}")
                    for kind, other in (
                        ("reverse_kl", "forward_kl"),
                        ("reverse_kl", "jsd"),
                        ("alpha", "reverse_kl"),
                        ("jsd", "reverse_kl"),
                        ("forward_kl", "reverse_kl"),
                        ("forward_kl", "jsd"),
                    )
                ),
            ),
            refuted_by="a policy more than a thousandth of total variation from the optimum under its own "
            "divergence, or another divergence's that gains more for as much of it",
            seconds=45,
        ),
        Claim(
            statement="The divergence sets where a policy stands between reward and diversity: at the same β "
            "reverse KL has more reward and less entropy than the α-divergence, that more and less than "
            "forward KL, and Jensen–Shannon lies between the two KLs.",
            experiment=Divergences(),
            arms=METHODS,
            expected=tuple(
                expectation
                for more, less in (
                    ("reverse_kl", "alpha"),
                    ("alpha", "forward_kl"),
                    ("reverse_kl", "jsd"),
                    ("jsd", "forward_kl"),
                )
                for expectation in (
                    Expectation(f"f-dpo, {more}", f"f-dpo, {less}", "reward"),
                    Expectation(f"f-dpo, {less}", f"f-dpo, {more}", "entropy"),
                )
            ),
            refuted_by="an order of rewards, or of entropies, other than that",
            seconds=1,
        ),
    ),
    note="Jensen–Shannon's place does not hold: f″(1) is ½ for it as it is defined here and 1 for the "
    "others, so that at the same β it holds its policy half as hard. Rewards for as much reverse KL do come "
    "in the paper's order. Rewards for as much of a divergence were compared prompt by prompt at first, "
    "which they cannot be, as they are matched over all prompts: now they are one number a seed.",
)
