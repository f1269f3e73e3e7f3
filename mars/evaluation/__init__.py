"""Scoring a model on lm-eval's benchmarks; ``evaluate.evaluate`` is the way in."""
