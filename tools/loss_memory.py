"""What the chunked loss takes in memory at a real vocabulary, beside computing all logits.

    python tools/loss_memory.py [--labels 8192] [--hidden 896] [--vocabulary 151936]

Each way runs in a process of its own: output embedding and hidden states are made, then the peak
of the resident memory during loss and gradients is compared with what was there before. The
gradient of the embedding is part of the peak, although a training step needs it anyway.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from mars.training.losses import weighted_cross_entropy

WAYS = ("chunked", "all logits")


def resident(peak: bool) -> int:
    """Bytes of resident memory of this process: now, or at its peak since the last reset."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(wanted):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {wanted}")


def measure(way: str, labels: int, hidden: int, vocabulary: int) -> int:
    """Bytes that loss and gradients took beyond weights (float32) and hidden states (bfloat16)."""
    torch.manual_seed(0)
    weight = torch.randn(vocabulary, hidden).mul_(0.02).requires_grad_()
    states = torch.randn(labels, hidden, dtype=torch.bfloat16).requires_grad_()
    targets = torch.randint(vocabulary, (labels,))
    weights = torch.full((labels,), 1 / labels)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident(peak=False)
    if way == "chunked":
        loss, _ = weighted_cross_entropy(states, weight, targets, weights)
    else:
        loss = cross_entropy((states @ weight.to(torch.bfloat16).T).float(), targets)
    loss.backward()
    return resident(peak=True) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--way", choices=WAYS, help="measure one in this process")
    options = parser.parse_args()
    sizes = (options.labels, options.hidden, options.vocabulary)
    if options.way:
        print(measure(options.way, *sizes))
        return
    print(f"{options.labels} labels, hidden size {options.hidden}, {options.vocabulary} tokens")
    gradient = 4 * options.hidden * options.vocabulary
    print(f"gradient of the embedding in float32: {gradient / 2**30:.2f} GiB")
    for way in WAYS:
        done = subprocess.run(
            [sys.executable, __file__, "--way", way, *sys.argv[1:]], capture_output=True, text=True
        )
        peak = f"{int(done.stdout) / 2**30:.2f} GiB" if done.returncode == 0 else "out of memory"
        print(f"{way:12} {peak}")


if __name__ == "__main__":
    main()
