"""Data: generators of the embedded experiment, chat formatting, hub data sets and their pins."""
