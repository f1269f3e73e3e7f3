"""Folders laid out like data set repositories of the Hugging Face hub."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mars.provenance.files import write_atomic

Configurations = Mapping[str, Mapping[str, pa.Table]]
"""The rows of a data set by configuration and split."""


def write_dataset(folder: Path, title: str, configurations: Configurations) -> None:
    """Write a data set so that ``datasets.load_dataset`` reads it.

    Args:
        folder: the repository, ``<output>/<owner>/<name>``.
        title: one sentence for the README.
        configurations: the first one is the default.
    """
    entries = []
    for index, (name, splits) in enumerate(configurations.items()):
        files = []
        for split, table in splits.items():
            path = f"{name}/{split}.parquet"
            write_atomic(folder / path, _parquet(table))
            files.append({"split": split, "path": path})
        entries.append({"config_name": name, "default": index == 0, "data_files": files})
    header = yaml.safe_dump({"license": "apache-2.0", "configs": entries}, sort_keys=False)
    write_atomic(folder / "README.md", f"---\n{header}---\n{title}\n")


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
