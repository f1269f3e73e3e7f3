"""Wall-clock measurement: the same prompts through every decoder, in turn, in one process."""
