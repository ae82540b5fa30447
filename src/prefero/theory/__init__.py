"""Small problems solved exactly: optima, games, token trees, and what losses do to probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.theory.distributions import (
        Desiderata as Desiderata,
        EntropyEstimate as EntropyEstimate,
        PowerLaw as PowerLaw,
        bradley_terry_policy as bradley_terry_policy,
        desiderata as desiderata,
        differential_information as differential_information,
        estimated_information_entropy as estimated_information_entropy,
        fitted_policy as fitted_policy,
        information_entropy as information_entropy,
        information_power as information_power,
        information_preference as information_preference,
        optimal_rejected as optimal_rejected,
        power_law as power_law,
    )
    from prefero.theory.games import (
        AdversarialPath as AdversarialPath,
        Extrapolated as Extrapolated,
        ProximalPath as ProximalPath,
        adversarial_critic as adversarial_critic,
        adversarial_path as adversarial_path,
        critic_loss as critic_loss,
        duality_gap as duality_gap,
        extragradient_step as extragradient_step,
        extrapolate as extrapolate,
        extrapolate_parameters as extrapolate_parameters,
        game_value as game_value,
        online_ipo_step_size as online_ipo_step_size,
        proximal_path as proximal_path,
        regularised_equilibrium as regularised_equilibrium,
        reward_of_preference as reward_of_preference,
        soft_policy_iteration as soft_policy_iteration,
        von_neumann_winner as von_neumann_winner,
        win_rate_rewards as win_rate_rewards,
        worst_case_win_rate as worst_case_win_rate,
    )
    from prefero.theory.misspecified import LogLinearBandit as LogLinearBandit
    from prefero.theory.optima import (
        divergence_optimum as divergence_optimum,
        independent_pairs_optimum as independent_pairs_optimum,
        pmpo_optimum as pmpo_optimum,
        psi_optimum as psi_optimum,
        reward_optimum as reward_optimum,
        reward_optimum_value as reward_optimum_value,
    )
    from prefero.theory.rewards import (
        PreferenceToReward as PreferenceToReward,
        doubly_robust_mean as doubly_robust_mean,
        doubly_robust_values as doubly_robust_values,
        importance_values as importance_values,
        penalised_weights as penalised_weights,
        total_preference as total_preference,
    )
    from prefero.theory.token_trees import (
        SoftOptimum as SoftOptimum,
        TokenTree as TokenTree,
        response_logps as response_logps,
        soft_optimum as soft_optimum,
    )
    from prefero.theory.vector_field import (
        Field as Field,
        descent as descent,
        dpo_field as dpo_field,
        field_of as field_of,
        probability_slopes as probability_slopes,
    )

__getattr__, __dir__, __all__ = lazily(__name__)
