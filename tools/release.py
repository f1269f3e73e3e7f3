"""Build the files of a release from a commit, into ``dist/``: ``make release``.

    python tools/release.py [--commit HEAD] [--tag v0.2.0] [--to dist]

The archive has the source and the results as committed, and beside them what is made here: the bill
of materials (``sbom.cdx.json``) and, for each experiment with records, the records one by one and
the RO-Crate that speaks of them. It is made by the code of that commit, and names the commit
(``gunzip -c <archive> | git get-tar-commit-id``). The same commit gives the same bytes, as long as
the zlib is the same. With ``--tag`` the version must be the tag's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from gzip import GzipFile
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from lock import PROJECT, ROOT
from sbom import bill_of_materials
from version import notes, problems, version_of

SBOM, NOTES, SUMS = "sbom.cdx.json", "notes.md", "SHA256SUMS"


def build(commit: str, to: Path, tag: str | None = None, root: Path = ROOT) -> list[Path]:
    """Write archive, bill of materials, notes and checksums; their paths.

    Args:
        commit: any name that git knows it by.
        to: folder, made if it is not there.
        tag: the release's, of which the version, its copies and the changelog are checked.
        root: the repository.

    Raises:
        SystemExit: there is no such commit, or it is not ready for that tag.
    """
    commit = _git(root, "rev-parse", "--verify", f"{commit}^{{commit}}").decode().strip()
    when = int(_git(root, "show", "--no-patch", "--format=%ct", commit))
    with TemporaryDirectory(prefix="mars-release-") as folder:
        tree = Path(folder)
        with tarfile.open(fileobj=BytesIO(_git(root, "archive", commit))) as source:
            source.extractall(tree, filter="data")
        if found := problems(tree, tag):
            sys.exit("\n".join(found))
        add_crates(tree)
        (tree / SBOM).write_text(bill_of_materials(tree))
        version = version_of(tree)
        name = f"{PROJECT}-{version}"
        to.mkdir(parents=True, exist_ok=True)
        made = [to / f"{name}.tar.gz", to / f"{name}.{SBOM}", to / NOTES]
        pack(tree, made[0], name, commit, when)
        shutil.copyfile(tree / SBOM, made[1])
        made[2].write_text(notes(tree, version) or notes(tree, "Unreleased"))
    sums = "".join(f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in made[:2])
    (to / SUMS).write_text(sums)
    return [*made, to / SUMS]


def add_crates(tree: Path) -> None:
    """Describe each experiment of which ``tree`` has the records as an RO-Crate, by its own code.

    One whose records that code does not read any more is left without, and said.
    """
    variables = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    for records in sorted(tree.glob("results/*/records.jsonl")):
        config = f"config/{records.parent.name}.yaml"
        command = [sys.executable, "-m", "mars", "export-crate", "--config", config]
        done = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True)
        if done.returncode:
            print(f"{config}: no crate: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)


def pack(tree: Path, file: Path, prefix: str, commit: str, when: int) -> None:
    """Write a folder as ``.tar.gz``: by name, nobody's, all of one second, and with the commit.

    Args:
        prefix: the folder that the archive unpacks to.
        when: the time of all files, in seconds since 1970.
    """

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = when
        entry.mode = 0o755 if entry.mode & 0o100 else 0o644
        return entry

    with (
        file.open("wb") as stream,
        GzipFile("", "wb", fileobj=stream, mtime=when) as packed,
        # As git does, the commit is the comment of the whole archive.
        tarfile.open(fileobj=packed, mode="w", pax_headers={"comment": commit}) as archive,
    ):
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            archive.add(path, f"{prefix}/{path.relative_to(tree)}", filter=plain)


def _git(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True)
    if done.returncode:
        sys.exit(f"git {words[0]}: {done.stderr.decode().strip()}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the files of a release into dist/.")
    parser.add_argument("--commit", default="HEAD")
    parser.add_argument("--tag", help="whose version the commit must have, e.g. v0.2.0")
    parser.add_argument("--to", type=Path, default=ROOT / "dist", metavar="FOLDER")
    options = parser.parse_args()
    print(*build(options.commit, options.to, options.tag), sep="\n")


if __name__ == "__main__":
    main()
