"""Scoring a model on lm-eval's benchmarks; ``evaluate.evaluate`` is the way in.

Nothing is imported here, so that reading scores (``mars.evaluation.scores``) costs and depends
on nothing else.
"""
