"""The generated corpus and the six miniature benchmarks."""
