"""A search for preference losses (Lu et al., 2024, arXiv 2406.08414): propose, screen, train, keep.

A proposal is a configuration of the registry, mostly of the method ``expression``: what a language model or
a mutation proposes is read as data and never run as code.
"""

from __future__ import annotations

from prefero_lab.discovery.archive import Archive, Entry, Proposal, Unreadable
from prefero_lab.discovery.bandit import BanditFitness
from prefero_lab.discovery.endpoint import Endpoint
from prefero_lab.discovery.fitness import Score, TextFitness, Unfit
from prefero_lab.discovery.mutation import Mutation
from prefero_lab.discovery.screening import screened
from prefero_lab.discovery.search import Fitness, Proposer, confirm, discover

__all__ = [
    "Archive",
    "BanditFitness",
    "Endpoint",
    "Entry",
    "Fitness",
    "Mutation",
    "Proposal",
    "Proposer",
    "Score",
    "TextFitness",
    "Unfit",
    "Unreadable",
    "confirm",
    "discover",
    "screened",
]
