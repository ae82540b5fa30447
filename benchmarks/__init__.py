"""What prefero costs, measured: against TRL, against itself without sharing, against a supervised step."""
