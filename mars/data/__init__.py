"""Data: the generated miniatures, data sets and models of the hub, tokenizers and token ids."""
