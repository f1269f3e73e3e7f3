"""`make test-gpu`: whether all of this works on the GPU of this machine, and how fast.

Needs torch, transformers, accelerate, numpy, psutil, safetensors and tqdm, and no network.
"""
