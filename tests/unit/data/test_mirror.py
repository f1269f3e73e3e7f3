"""`mars fetch` against a hub that fails, breaks off, sends wrong bytes and is gated."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mars.config.experiment import read_experiment
from mars.data import mirror as filling
from mars.data.hub import FETCHED, MIRROR_VARIABLE, fetch
from mars.data.mirror import Wanted, fill
from mars.errors import UserError
from mars.provenance.files import read_json, sha256_file
from tests.support.hub_server import COMMIT, Hub, serving
from tests.support.waiting import end_of, run, started, wait

ROOT = Path(__file__).resolve().parents[3]
MODEL, DATA, GATED = "Xalphinions/small", "owner/data", "Idavidrein/gpqa"
WANTED = [Wanted(MODEL, "model"), Wanted(DATA, "dataset"), Wanted(GATED, "dataset", None, "gpqa")]
BIG = f"/{MODEL}/resolve/{COMMIT}/model.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    draw = random.Random(0)
    contents = {
        f"{MODEL}/model.safetensors": draw.randbytes(400_000),
        f"{MODEL}/config.json": b'{"model_type": "a2d-qwen2"}',
        f"{MODEL}/modeling_a2d.py": b"raise SystemExit",
        f"{DATA}/README.md": b"rows",
        f"{DATA}/main/train-0.parquet": draw.randbytes(50_000),
        f"{DATA}/main/train-1.parquet": draw.randbytes(50_000),
        f"{GATED}/gpqa_main.csv": draw.randbytes(2_000),
    }
    for name, data in contents.items():
        (tmp_path / "served" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "served" / name).write_bytes(data)
    with serving(tmp_path / "served") as hub:
        yield hub


@pytest.fixture
def here(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, for calls in this process; waits between attempts are short."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(filling, "FIRST_WAIT", 0.01)
    return hub


def assert_whole(mirror: Path, served: Path, repositories: set[str]) -> None:
    """The mirror holds what is served, code left out, and its record tells the truth."""
    record = read_json(mirror / FETCHED)
    assert set(record) == repositories
    for repository, entry in record.items():
        assert entry["complete"]
        assert entry["revision"] == COMMIT
        files = {p for p in (served / repository).rglob("*") if p.is_file() and p.suffix != ".py"}
        names = {str(path.relative_to(served / repository)) for path in files}
        assert set(entry["files"]) == names
        here = {p for p in (mirror / repository).rglob("*") if p.is_file()}
        assert {str(path.relative_to(mirror / repository)) for path in here} == names
        for name, known in entry["files"].items():
            assert sha256_file(served / repository / name) == known["sha256"]
            assert sha256_file(mirror / repository / name) == known["sha256"]
            assert (mirror / repository / name).stat().st_size == known["bytes"]


def test_all_is_fetched_once_and_then_nothing_is_asked(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mirror = tmp_path / "mirror"
    assert fill(mirror, WANTED) == []
    assert_whole(mirror, here.folder, {MODEL, DATA, GATED})
    assert here.sent[BIG] == 400_000
    here.requests.clear()
    assert fill(mirror, WANTED) == []
    assert not here.requests
    monkeypatch.setenv(MIRROR_VARIABLE, str(mirror))
    assert fetch(MODEL, "model", None, tmp_path / "out")["revision"] == COMMIT
    assert not here.requests


def test_errors_breaks_and_wrong_bytes_are_overcome(here: Hub, tmp_path: Path):
    data = f"/datasets/{DATA}/resolve/{COMMIT}/main/train-0.parquet"
    here.failing |= {f"/api/models/{MODEL}": 2, BIG: 2, f"/api/models/{MODEL}/revision/main": 1}
    here.cutting |= {BIG: 2}
    here.corrupting |= {data: 1}
    assert fill(tmp_path / "mirror", WANTED) == []
    assert_whole(tmp_path / "mirror", here.folder, {MODEL, DATA, GATED})
    assert here.sent[BIG] == 400_000, "after a break it goes on at the byte where it was"
    assert here.sent[data] == 100_000, "wrong bytes are fetched again"


def test_a_server_that_never_recovers_is_one_sentence(here: Hub, tmp_path: Path):
    here.failing |= {BIG: 1000}
    with pytest.raises(
        UserError, match=r"could not be fetched \(.*503.*it resumes where it stopped"
    ):
        fill(tmp_path / "mirror", WANTED)
    here.failing.clear()
    assert fill(tmp_path / "mirror", WANTED) == []


@pytest.mark.parametrize("damage", ["corrupt", "cut", "delete"])
def test_a_damaged_file_is_found_and_fetched_again_alone(here: Hub, tmp_path: Path, damage: str):
    mirror = tmp_path / "mirror"
    fill(mirror, WANTED)
    file = mirror / DATA / "main/train-1.parquet"
    if damage == "delete":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content[: 1000 if damage == "cut" else None])
    here.requests.clear()
    assert fill(mirror, WANTED) == []
    assert_whole(mirror, here.folder, {MODEL, DATA, GATED})
    asked = {request.split("/resolve/")[1] for request in here.requests if "/resolve/" in request}
    assert asked == {f"{COMMIT}/main/train-1.parquet"}


def test_gated_data_is_one_sentence_and_the_rest_is_there(here: Hub, tmp_path: Path):
    here.gated.add(GATED)
    (problem,) = fill(tmp_path / "mirror", WANTED)
    assert f"{here.endpoint}/datasets/{GATED}, click 'Agree and access repository'" in problem
    assert "`benchmarks: {gpqa: null}`" in problem
    record = read_json(tmp_path / "mirror" / FETCHED)
    assert {name: entry["complete"] for name, entry in record.items()} == {
        MODEL: True,
        DATA: True,
        GATED: False,
    }
    assert fill(tmp_path / "mirror", WANTED[:2]) == []
    here.gated.clear()
    assert fill(tmp_path / "mirror", WANTED) == []


def test_an_unknown_repository_is_one_sentence(here: Hub, tmp_path: Path):
    (problem,) = fill(tmp_path / "mirror", [Wanted("owner/nothing", "model"), *WANTED[1:]])
    assert "owner/nothing at its newest commit is not on the hub" in problem


def test_a_folder_of_ones_own_is_left_alone(here: Hub, tmp_path: Path):
    own = tmp_path / "mirror/me/mine/train.jsonl"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    assert fill(tmp_path / "mirror", [Wanted("me/mine", "dataset"), *WANTED]) == []
    assert own.read_text() == "{}"
    assert not [request for request in here.requests if "me/mine" in request]


def test_a_full_disk_is_noticed_before_anything_is_fetched(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = type("usage", (), {"free": 499_000})
    monkeypatch.setattr(filling.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"0\.5 MB are still to be fetched and .* has 0\.5 MB free"):
        fill(tmp_path / "mirror", WANTED)
    assert not here.sent[BIG]


@pytest.mark.parametrize("there", [True, False])
def test_the_sentence_splitter_of_ifeval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
):
    def download(name: str, download_dir: str, quiet: bool) -> bool:
        (Path(download_dir) / "tokenizers" / name / "english").mkdir(parents=True)
        return there

    monkeypatch.setattr("nltk.download", download)
    warning = filling.fetch_splitter(tmp_path)
    assert warning is None if there else "with an untrained model" in str(warning)
    if there:
        monkeypatch.setattr("nltk.download", None)  # not called again
        assert filling.fetch_splitter(tmp_path) is None


def test_only_one_fetch_fills_a_mirror(here: Hub, tmp_path: Path):
    with (
        filling._alone(tmp_path / "mirror"),
        pytest.raises(UserError, match="another `mars fetch` is filling"),
    ):
        fill(tmp_path / "mirror", WANTED)


def test_a_killed_fetch_goes_on_with_the_files_that_are_missing(hub: Hub, tmp_path: Path):
    """The real command, killed while the large file is half there."""
    size = 25_000_000  # what arrives is written in pieces of ten megabytes
    (hub.folder / MODEL / "model.safetensors").write_bytes(random.Random(1).randbytes(size))
    mirror = tmp_path / "mirror"
    command = [*(sys.executable, "-m", "mars", "fetch", "--to", str(mirror))]
    command += ["--config", str(experiment(tmp_path))]
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    hub.stalling.set()
    with started(command, tmp_path / "log", cwd=ROOT, env=environment) as first:

        def half() -> bool:
            begun = sum(file.stat().st_size for file in mirror.rglob("*.incomplete"))
            return begun > size / 3 and (mirror / MODEL / "config.json").is_file()

        assert wait(first, tmp_path, until=half) is None, end_of(tmp_path / "log")
    assert not (mirror / MODEL / "model.safetensors").exists()
    hub.stalling.clear()
    hub.sent.clear()
    done = run(command, tmp_path, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout
    assert f"export {MIRROR_VARIABLE}={mirror}" in done.stdout
    assert_whole(mirror, hub.folder, {MODEL, DATA, GATED})
    assert hub.sent[BIG] == size
    assert not hub.sent[f"/{MODEL}/resolve/{COMMIT}/config.json"], "it was there already"


def experiment(folder: Path) -> Path:
    """The configuration of an experiment on the served repositories."""
    content = read_experiment(ROOT / "config/ci.yaml")
    content["data"] = {"source": "hub", "dataset": DATA}
    content["scales"]["small"]["base"] = {"source": "hub", "repository": MODEL}
    content["benchmarks"] = {"gpqa": content["benchmarks"]["gpqa"]}
    content |= {"evaluate": [], "artefacts": [], "speed": None, "probe": None}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    return folder / "mine.yaml"
