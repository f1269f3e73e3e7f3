"""The HTML page of an experiment: what was found, and which job made it."""
