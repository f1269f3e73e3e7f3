"""MARS-repro: a reproducibility pipeline for arXiv 2604.07023."""

__version__ = "0.1.0"
