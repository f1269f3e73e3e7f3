"""What an experiment may say, and overlays of it."""
