"""What tables and claims are made from, in two files small enough for git.

``samples.parquet``: a row per question of every evaluation: what was answered, what it cost, what
it scored. ``evidence.parquet``: the other files that tables and claims read. Both give back, byte
for byte, what the jobs wrote, so that the records above them still vouch for it. Only of weights
is nothing kept but the head of their files: the names and shapes of the tensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mars.errors import UserError
from mars.provenance.files import read_json, write_atomic
from mars.provenance.manifest import NAME as MANIFEST

if TYPE_CHECKING:
    import pyarrow

SAMPLES, EVIDENCE = "samples.parquet", "evidence.parquet"
OF_SAMPLES = ".samples.jsonl"
CELL = ("model", "setting", "benchmark")
# Of a line of samples: texts, numbers, and what may be of any kind, which stands as JSON.
TEXTS = ("task", "prompt_sha256", "generation", "finish")
NUMBERS = ("document", "tokens", "forwards", "overrun")
AS_JSON = ("target", "extracted", "scores")
ORDER = (
    *("task", "document", "prompt_sha256", "target", "generation", "tokens", "forwards"),
    *("finish", "overrun", "truncated", "extracted", "scores"),
)
# Files whose whole content is kept, and those of which the head is.
KEPT = (
    *(f"evaluations/*/{MANIFEST}", "evaluations/*/*/*.json", "speed/[!.]*/*"),
    *(f"checkpoints/*/{MANIFEST}", "checkpoints/*/config.json"),
)
HEADS = "checkpoints/*/*.safetensors"
COMPRESSION = {"compression": "zstd", "compression_level": 19}


class Kept(NamedTuple):
    """A file, or its head; ``size`` is that of the whole file, in bytes."""

    content: bytes
    size: int


# --- packing ------------------------------------------------------------------------------------


def pack(results: Path) -> None:
    """Write ``samples.parquet`` and ``evidence.parquet`` into a folder of results.

    The same content gives the same bytes.
    """
    samples, others = _samples(_cells(results))
    write_atomic(results / SAMPLES, samples)
    write_atomic(results / EVIDENCE, _evidence(results, others))


Cell = tuple[str, ...]
"""Model, setting and benchmark."""


def _cells(results: Path) -> dict[Cell, Path]:
    """The files of samples, benchmark by benchmark: there answers are alike, and pack well."""
    files = results.glob(f"evaluations/*/*/*{OF_SAMPLES}")
    found = {(*f.parts[-3:-1], f.name.removesuffix(OF_SAMPLES)): f for f in files}
    return {cell: found[cell] for cell in sorted(found, key=lambda cell: (cell[-1], *cell))}


def _samples(cells: Mapping[Cell, Path]) -> tuple[bytes, list[Path]]:
    """The rows of all cells, a row group for each benchmark; the files that are no such rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    others: list[Path] = []
    stream = BytesIO()
    with pq.ParquetWriter(stream, _table([]).schema, **COMPRESSION) as writer:
        for _, group in groupby(cells.items(), key=lambda item: item[0][-1]):
            tables = {file: _rows(cell, file) for cell, file in group}
            others += [file for file, table in tables.items() if table is None]
            writer.write_table(
                pa.concat_tables([_table([]), *(one for one in tables.values() if one)])
            )
    return stream.getvalue(), others


def _rows(cell: Cell, file: Path) -> pyarrow.Table | None:
    """The rows of a cell; None where the columns would not give back the very file."""
    text = file.read_text()
    benchmark = read_json(file.with_name(f"{cell[-1]}.json"))["cell_spec"]["benchmark"]
    lines = text.removesuffix("\n").split("\n")
    try:
        table = _table([_row(cell, json.loads(line), benchmark) for line in lines])
        return table if _text(table.to_pylist()) == text else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _row(cell: Cell, line: Mapping[str, Any], benchmark: Mapping[str, Any]) -> dict[str, Any]:
    """A line of samples as a row; its score is the one that the tables are about."""
    score = line["scores"].get(benchmark["filter"], {}).get(benchmark["metric"])
    return {
        **dict(zip(CELL, cell, strict=True)),
        **{key: line.get(key) for key in (*TEXTS, *NUMBERS, "truncated")},
        **{key: json.dumps(line[key], ensure_ascii=False) for key in AS_JSON},
        "score": float(score) if isinstance(score, bool | int | float) else None,
    }


def _table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    import pyarrow as pa

    kinds = {
        **dict.fromkeys((*CELL, *TEXTS, *AS_JSON), pa.string()),
        **dict.fromkeys(NUMBERS, pa.int64()),
        **{"truncated": pa.bool_(), "score": pa.float64()},
    }
    columns = (*CELL, *ORDER, "score")
    return pa.Table.from_pylist(rows, pa.schema([(name, kinds[name]) for name in columns]))


def _evidence(results: Path, others: Iterable[Path]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = {file for pattern in KEPT for file in results.glob(pattern) if file.is_file()}
    contents = {file: file.read_bytes() for file in {*found, *others}}
    contents |= {file: _head(file) for file in results.glob(HEADS)}
    kept = {
        str(file.relative_to(results)): Kept(content, file.stat().st_size)
        for file, content in contents.items()
    }
    kept |= _heads_of_deleted(results, kept)
    rows = [{"file": file, **kept[file]._asdict()} for file in sorted(kept)]
    kinds = [("file", pa.string()), ("content", pa.binary()), ("size", pa.int64())]
    stream = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), stream, **COMPRESSION)
    return stream.getvalue()


def _heads_of_deleted(results: Path, kept: Mapping[str, Kept]) -> dict[str, Kept]:
    """What was packed of weights that were deleted since, while their manifest is as it was."""
    before = Packed(results).kept
    found = {file: one for file, one in before.items() if Path(file).match(HEADS)}
    manifests = {file: str(Path(file).with_name(MANIFEST)) for file in found}
    return {
        file: one
        for file, one in found.items()
        if file not in kept and before.get(manifests[file]) == kept.get(manifests[file])
    }


def _head(file: Path) -> bytes:
    """What stands before the weights in a safetensors file: its length, names, shapes, places."""
    with file.open("rb") as stream:
        length = stream.read(8)
        return length + stream.read(int.from_bytes(length, "little"))


# --- unpacking ----------------------------------------------------------------------------------


class Packed:
    """What a folder of results has packed; nothing, where neither file is there.

    Files go by their path inside the folder of results.
    """

    def __init__(self, results: Path):
        self.results = results

    @cached_property
    def kept(self) -> dict[str, Kept]:
        """The files of ``evidence.parquet``, whole or in part."""
        return {row["file"]: Kept(row["content"], row["size"]) for row in self._rows(EVIDENCE)}

    def samples(self) -> Iterator[tuple[str, bytes]]:
        """The files of samples, one after another."""
        rows = self._rows(SAMPLES)
        for cell, lines in groupby(rows, key=lambda row: tuple(row[key] for key in CELL)):
            yield _file_of(*cell), _text(lines).encode()

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not (path := self.results / name).is_file():
            return
        try:
            with pq.ParquetFile(path) as packed:
                for batch in packed.iter_batches():
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path} cannot be read ({reason}); take it from git again, or remove it."
            ) from error

    @cached_property
    def sha256(self) -> dict[str, str]:
        """The hash of each file of which all is here."""
        whole = ((file, one.content) for file, one in self.kept.items() if _is_all(one))
        return {file: sha256(content).hexdigest() for file, content in chain(whole, self.samples())}

    def read(self, file: str) -> bytes | None:
        """A file's content, if all of it is here."""
        if not file.endswith(OF_SAMPLES) or file in self.kept:
            one = self.kept.get(file)
            return one.content if one and _is_all(one) else None
        return next((content for name, content in self.samples() if name == file), None)

    def unpack(self, folder: Path) -> None:
        """Write all files into another folder of results; weights that are not here are zeros."""
        whole = ((file, Kept(content, len(content))) for file, content in self.samples())
        for file, one in chain(self.kept.items(), whole):
            path = folder / file
            if ".." in path.parts or Path(file).is_absolute():
                raise UserError(f"{self.results / EVIDENCE} names {file}, which is no result.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one.content)
            os.truncate(path, one.size)


def _file_of(model: str, setting: str, benchmark: str) -> str:
    return f"evaluations/{model}/{setting}/{benchmark}{OF_SAMPLES}"


def _text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as the file of samples that they were."""
    return "".join(json.dumps(_line(row), ensure_ascii=False) + "\n" for row in rows)


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    line = {key: json.loads(row[key]) if key in AS_JSON else row[key] for key in ORDER}
    if "gpqa" in line["task"]:  # whose text may not be spread: its lines have none
        del line["generation"]
    return line


def _is_all(one: Kept) -> bool:
    return len(one.content) == one.size
