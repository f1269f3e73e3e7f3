"""Make the data set of the experiment `smollm2-gsm8k`: GSM8K's training questions as conversations.

    hf download openai/gsm8k --repo-type dataset --local-dir mirror/openai/gsm8k
    python tools/gsm8k_messages.py mirror

writes ``mirror/mars-data/gsm8k-messages``. The answers are GSM8K's without the calculator's
annotations, in one line, and end as the worked examples of lm-eval's `gsm8k_cot` do.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mars.data.hub import read_dataset
from mars.errors import UserError

SOURCE, MADE = "openai/gsm8k", "mars-data/gsm8k-messages"
README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: default/train.parquet
---
The training split of openai/gsm8k (MIT) as conversations, by tools/gsm8k_messages.py of MARS-repro.
"""


def conversation(question: str, answer: str) -> list[dict[str, str]]:
    """The messages of one problem; ``answer`` as GSM8K has it, its result after ``####``."""
    steps, result = re.sub("<<.*?>>", "", answer).split("\n#### ")
    text = " ".join([*steps.split("\n"), f"The answer is {result}."])
    return [{"role": "user", "content": question}, {"role": "assistant", "content": text}]


def make(mirror: Path) -> Path:
    """Write the data set into a mirror that has GSM8K; its folder.

    Raises:
        UserError: GSM8K is not there.
    """
    if not (mirror / SOURCE).is_dir():
        raise UserError(
            f"{mirror / SOURCE} is not there; fetch it first: "
            f"hf download {SOURCE} --repo-type dataset --local-dir {mirror / SOURCE}"
        )
    problems = read_dataset(mirror / SOURCE, "main", "train")
    rows = [
        {"messages": conversation(problem["question"], problem["answer"])} for problem in problems
    ]
    folder = mirror / MADE
    (folder / "default").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "default" / "train.parquet")
    (folder / "README.md").write_text(README)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="GSM8K's training questions as conversations.")
    parser.add_argument("mirror", type=Path, help="folder in hub layout that has openai/gsm8k")
    try:
        print(make(parser.parse_args().mirror))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
