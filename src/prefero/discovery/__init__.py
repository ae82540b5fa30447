"""A search for preference losses (Lu et al., 2024, arXiv 2406.08414): propose, screen, train, keep.

A proposal is a configuration of the registry, mostly of the method ``expression``: what a language model or
a mutation proposes is read as data and never run as code.
"""

from __future__ import annotations

from prefero.discovery.archive import Archive, Entry, Proposal, Unreadable
from prefero.discovery.bandit import BanditFitness
from prefero.discovery.endpoint import Endpoint
from prefero.discovery.fitness import Score, TextFitness, Unfit
from prefero.discovery.mutation import Mutation
from prefero.discovery.screening import screened
from prefero.discovery.search import Fitness, Proposer, confirm, discover

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
