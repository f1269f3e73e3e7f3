"""Losses of a short seeded run of every method, and where two versions of the code first differ.

    python -m tests.support.golden_losses measure FILE   train with the code here, write losses
    python -m tests.support.golden_losses compare A B    A and B: files of losses, or git commits

`compare` checks a commit out beside this one, trains with its code, and prints the first step at
which a method's loss differs by more than a rounding error. It exits with 1 if one does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

STORED = Path(__file__).with_name("golden_losses.json")
TOLERANCE = 1e-4  # relative; another CPU sums in another order

RUNS: dict[str, dict] = {
    "pretrain": {"method": "pretrain"},
    "ar_sft": {"method": "ar_sft"},
    "mars": {"method": "mars"},
    "mars, w/o SFT loss": {"method": "mars", "ar_weight": 0.0},
    "block_diffusion": {"method": "block_diffusion"},
    "block_diffusion, not shifted": {"method": "block_diffusion", "right_shift": False},
}

Losses = dict[str, list[float]]


def measure() -> Losses:
    """Loss of every step of every run; all but pre-training start from its result."""
    import torch

    from mars.provenance.files import read_jsonl
    from mars.training.trainer import train
    from tests.support.small_training import (
        make_settings,
        make_spec,
        write_dataset,
        write_tokenizer,
    )

    torch.set_num_threads(1)
    losses: Losses = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer = write_tokenizer(folder / "tokenizer")
        dataset = write_dataset(folder / "dataset")
        for name, run in RUNS.items():
            train(
                make_spec(training=make_settings(epochs=2), **run),
                parent=tokenizer if name == "pretrain" else folder / "pretrain",
                dataset=dataset,
                work=folder / "work" / run["method"],
                output=folder / name.replace("/", ""),
            )
            log = read_jsonl(folder / name.replace("/", "") / "training.jsonl")
            losses[name] = [line["loss"] for line in log]
    return losses


def first_difference(before: Losses, after: Losses) -> list[str]:
    """One sentence per method that differs: where first, and by how much."""
    sentences = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, []), after.get(name, [])
        for step, (one, two) in enumerate(zip(old, new, strict=False), 1):
            if abs(one - two) > TOLERANCE * abs(one):
                sentences.append(f"{name}: first at step {step}, {one:.6f} became {two:.6f}")
                break
        else:
            if len(old) != len(new):
                sentences.append(f"{name}: {len(old)} steps became {len(new)}")
    return sentences


def _losses(which: str) -> Losses:
    """Losses stored in a file, or measured with the code of a commit."""
    if Path(which).is_file():
        return json.loads(Path(which).read_text())
    with tempfile.TemporaryDirectory() as temporary:
        tree, file = Path(temporary) / "tree", Path(temporary) / "losses.json"
        git = ["git", "-C", str(STORED.parent), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), which], check=True)
        try:
            subprocess.run(
                [sys.executable, __file__, "measure", str(file)],
                env={**os.environ, "PYTHONPATH": f"{tree}:{STORED.parents[2]}"},
                check=True,
            )
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
        return json.loads(file.read_text())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", file]:
            Path(file).write_text(json.dumps(measure(), indent=1) + "\n")
        case ["compare", before, after]:
            differences = first_difference(_losses(before), _losses(after))
            print("\n".join(differences) or "no loss differs")
            sys.exit(bool(differences))
        case _:
            sys.exit(__doc__)
