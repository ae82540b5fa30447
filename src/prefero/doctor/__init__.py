"""What preference data will do before a model is trained on them: checks, each with its number and remedy."""
