"""A result of ``make test-gpu`` that nobody measured, for tests of who reads them."""

from __future__ import annotations

from typing import Any


def made_up_result(name: str = "A GPU", utilisation: float = 0.2) -> dict[str, Any]:
    """One GPU of 500 TFLOP/s that trains at the utilisation given; slower where it recomputes."""
    return {
        "device": {
            "name": name,
            "memory_bytes": 100_000_000_000,
            "peak_bfloat16_flops": 5e14,
            "memory_bandwidth": 3e12,
        },
        "versions": {"torch": "2.13.0"},
        "commit": "0" * 40,
        "date": "2026-01-01",
        "checks": [{"name": "engine", "status": "passed", "detail": ""}],
        "decoding": [
            {
                "shape": "7B",
                "method": method,
                "batch": batch,
                "tokens_per_second": batch * 10.0,
                "bandwidth_share": 0.3,
            }
            for method in ("autoregressive", "cursor", "hf")
            for batch in (4, 64)
        ],
        "training": [
            {
                "shape": shape,
                "method": method,
                "row_length": 4096,
                "activation_checkpointing": recompute,
                "compile": False,
                "tokens_per_second": 5000.0,
                "model_flops_utilisation": utilisation * (0.75 if recompute else 1),
                "peak_memory_bytes": 50_000_000_000,
                "modelled_memory_bytes": 52_000_000_000,
            }
            for shape in ("0.5B", "7B")
            for method in ("ar_sft", "mars")
            for recompute in (False, True)
        ],
    }
