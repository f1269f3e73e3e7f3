"""What is decoded when speed is measured."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mars.data.minibench.miniature import generator
from mars.data.minibench.word_problems import WordProblems
from mars.decoding.generate import prompt_ids
from mars.errors import UserError

BUILT_IN = "built-in"


def load_prompts(source: str, tokenizer: PreTrainedTokenizerBase, count: int) -> list[list[int]]:
    """At most ``count`` prompts as token ids, in chat format where the tokenizer has one.

    Args:
        source: ``built-in``, the project's word problems (the miniature of GSM8K, on which the
            paper measures speed), or a file with one JSON object per line that has "prompt",
            what the user says, or "input_ids".

    Raises:
        UserError: no such file, or a line that is neither.
    """
    if source == BUILT_IN:
        rng = generator(0, "speed")
        problems = (WordProblems().example(rng, "main") for _ in range(count))
        return [prompt_ids(tokenizer, problem.messages[-2]["content"]) for problem in problems]
    path = Path(source)
    if not path.is_file():
        raise UserError(f"--prompts names the file {source}, which does not exist.")
    lines = [line for line in path.read_text().splitlines() if line.strip()][:count]
    if not lines:
        raise UserError(f"{source} holds no prompts.")
    return [_prompt(line, f"{source}, line {n}", tokenizer) for n, line in enumerate(lines, 1)]


def _prompt(line: str, where: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if isinstance(row, dict):
        if isinstance(row.get("input_ids"), list):
            return row["input_ids"]
        if isinstance(row.get("prompt"), str):
            return prompt_ids(tokenizer, row["prompt"])
    raise UserError(f'{where}: give a JSON object with "prompt" (text) or "input_ids".')
