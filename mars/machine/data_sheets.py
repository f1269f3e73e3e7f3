"""What the makers of GPUs say that these can do at best."""

from __future__ import annotations

import re

# Dense bfloat16 operations and bytes of memory per second, from NVIDIA's data sheets. The first
# entry whose words are all in the device's name counts.
DATA_SHEETS = [
    (("H200",), 989e12, 4.8e12),
    (("H100", "PCIe"), 756e12, 2.0e12),
    (("H100", "NVL"), 835e12, 3.9e12),
    (("H100",), 989e12, 3.35e12),
    (("A100", "PCIE-40GB"), 312e12, 1.555e12),
    (("A100", "SXM4-40GB"), 312e12, 1.555e12),
    (("A100", "PCIe", "80GB"), 312e12, 1.935e12),
    (("A100",), 312e12, 2.039e12),
    (("L40S",), 362e12, 0.864e12),
    (("RTX 4090",), 165e12, 1.008e12),
    (("RTX 3090",), 71e12, 0.936e12),
    (("L4",), 121e12, 0.3e12),
    (("A10",), 125e12, 0.6e12),
]


def peaks(name: str) -> tuple[float | None, float | None]:
    """Operations in bfloat16 and bytes of memory per second of the device of this name."""
    for words, flops, bandwidth in DATA_SHEETS:
        if all(re.search(rf"\b{word}\b", name) for word in words):
            return flops, bandwidth
    return None, None
