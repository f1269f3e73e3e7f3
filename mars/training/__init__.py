"""Training: the dual stream, the losses, the loop, and the block-diffusion baseline."""

from mars.training.trainer import train

__all__ = ["train"]
