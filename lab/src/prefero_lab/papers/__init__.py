"""An executable survey: what papers on learning from preferences claim, measured each time it is asked.

    prefero_lab.papers.reproduce("dpo", seeds=3)

A module a paper, found by itself in the folder of its area (:mod:`prefero_lab.papers.paper` has the pattern);
:mod:`prefero_lab.papers.verdicts` has the rule by which a claim holds.
"""

from prefero_lab.papers.outcome import Outcome
from prefero_lab.papers.paper import (
    START,
    Arm,
    Check,
    Claim,
    Expectation,
    Experiment,
    Number,
    Paper,
    Trained,
)
from prefero_lab.papers.runner import Survey, reproduce, reproduce_all
from prefero_lab.papers.survey import find, papers

__all__ = [
    "START",
    "Arm",
    "Check",
    "Claim",
    "Expectation",
    "Experiment",
    "Number",
    "Outcome",
    "Paper",
    "Survey",
    "Trained",
    "find",
    "papers",
    "reproduce",
    "reproduce_all",
]
