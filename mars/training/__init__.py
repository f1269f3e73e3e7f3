"""Training: the dual stream, the losses, the loop, and the block-diffusion baseline."""
