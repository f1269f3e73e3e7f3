"""The typed model of an experiment, its overlays, and its key reference."""
