"""Documents are read from the files where they lie, however many pieces these have."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, load_from_disk

from mars.data.tokens import Documents


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5000 documents of 200 tokens on average, in three files, each written in several pieces."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 400, 5000)
    rows = {
        "input_ids": [generator.integers(3, 48, n).astype(np.int32) for n in lengths],
        "prompt_length": generator.integers(1, 300, 5000).astype(np.int32),
    }
    folder = tmp_path_factory.mktemp("sharded") / "data"
    Dataset.from_dict(rows).save_to_disk(str(folder), num_shards=3)
    assert load_from_disk(str(folder)).data.column("input_ids").num_chunks >= 3
    return folder


def test_documents_are_those_of_the_data_set(sharded: Path) -> None:
    rows = load_from_disk(str(sharded))
    documents = Documents(sharded)
    assert documents.prompts.tolist() == list(rows["prompt_length"])
    assert documents.last_tokens().tolist() == [ids[-1] for ids in rows["input_ids"]]
    assert documents.lengths.tolist() == [len(ids) for ids in rows["input_ids"]]
    for index in [0, 1, 999, 1000, 1666, 1667, 3333, 3334, 4998, 4999]:
        assert documents[index].tolist() == rows[index]["input_ids"]


def test_tokens_are_never_copied(sharded: Path) -> None:
    """Neither by Arrow nor into Python: what is held grows with the documents, 20 bytes each."""
    tokens = sum(file.stat().st_size for file in sharded.glob("*.arrow"))
    load_from_disk(str(sharded))
    in_arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    documents = Documents(sharded)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pa.total_allocated_bytes() - in_arrow < tokens / 20
    assert peak < tokens / 4
    first, last = documents[0], documents[4999]
    assert not first.flags.owndata
    assert not last.flags.owndata
