"""The data set of `smollm2-gsm8k`, made from GSM8K by tools/gsm8k_messages.py."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mars.data.hub import read_dataset

ROOT = Path(__file__).resolve().parents[3]
TOOL = [sys.executable, str(ROOT / "tools" / "gsm8k_messages.py")]
README = """---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train.parquet
---
"""
PROBLEM = {
    "question": "Ann has 2 bags of 3 figs and eats one. How many are left?",
    "answer": "There are 2*3=<<2*3=6>>6 figs.\nAnn has 6-1=<<6-1=5>>5 left.\n#### 5",
}


def run(mirror: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOOL, str(mirror)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_a_problem_becomes_a_conversation(tmp_path):
    folder = tmp_path / "openai" / "gsm8k"
    (folder / "main").mkdir(parents=True)
    (folder / "README.md").write_text(README)
    pq.write_table(pa.Table.from_pylist([PROBLEM]), folder / "main" / "train.parquet")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = read_dataset(Path(done.stdout.strip()), None, "train")
    assert row["messages"] == [
        {"role": "user", "content": PROBLEM["question"]},
        {
            "role": "assistant",
            "content": "There are 2*3=6 figs. Ann has 6-1=5 left. The answer is 5.",
        },
    ]


def test_without_gsm8k_it_says_so_in_a_sentence(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert "openai/gsm8k" in done.stderr
    assert "Traceback" not in done.stderr


MIRROR = Path(os.environ.get("MARS_HUB_MIRROR", ""))


@pytest.mark.skipif(
    not (MIRROR / "mars-data/gsm8k-messages").is_dir(),
    reason="MARS_HUB_MIRROR names no folder with mars-data/gsm8k-messages",
)
def test_the_data_set_that_was_trained_on_is_made_again(tmp_path):
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "gsm8k").symlink_to(MIRROR / "openai" / "gsm8k")
    made = read_dataset(Path(run(tmp_path).stdout.strip()), None, "train")
    trained_on = read_dataset(MIRROR / "mars-data" / "gsm8k-messages", None, "train")
    assert made["messages"] == trained_on["messages"]
