"""Training, evaluation, prediction."""
