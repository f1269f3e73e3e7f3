"""The CUDA paths, traced on fake tensors with a CUDA build of torch and no GPU."""
