"""Checkpoints: loaded, imported, exported, described."""
