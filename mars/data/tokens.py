"""Token ids on disk, as a data set that was saved: read where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import load_from_disk

from mars.errors import UserError


class Documents:
    """Token ids and prompt lengths of a saved data set, whose tokens stay on disk.

    The Arrow files are mapped into memory and read where they lie. They come in chunks (a file is
    written in pieces, a large data set in several files), and joining these would copy them.

    Attributes:
        lengths: (documents,) tokens of each.
        prompts: (documents,) how many of them carry no loss.
    """

    def __init__(self, path: Path) -> None:
        try:
            dataset = load_from_disk(str(path), keep_in_memory=False)
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no data set; prepare the data first.") from error
        if missing := {"input_ids", "prompt_length"} - set(dataset.column_names):
            raise UserError(f"{path}: column {min(missing)!r} is missing; prepare the data again.")
        column: pa.ChunkedArray = dataset.data.column("input_ids")
        self._tokens = [chunk.values.to_numpy() for chunk in column.chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in column.chunks]
        # The first document of each chunk; the offsets of a chunk also say where its last one ends.
        self._first = np.cumsum([0, *(len(offsets) - 1 for offsets in self._offsets)])
        self.lengths = np.concatenate([np.empty(0, np.int32), *map(np.diff, self._offsets)])
        self.prompts = dataset.data.column("prompt_length").to_numpy()

    def last_tokens(self) -> np.ndarray:
        """(documents,) the last token of each; no document is empty."""
        pairs = zip(self._tokens, self._offsets, strict=True)
        ends = (tokens[offsets[1:] - 1] for tokens, offsets in pairs)
        return np.concatenate([np.empty(0, np.int32), *ends])

    def __getitem__(self, index: int) -> np.ndarray:
        """The token ids of one document, a view of the file."""
        chunk = int(np.searchsorted(self._first, index, side="right")) - 1
        start, end = self._offsets[chunk][index - self._first[chunk] :][:2]
        return self._tokens[chunk][start:end]
