"""Starting the server, as far as it goes without its packages."""

import sys
import tomllib
from pathlib import Path

import pytest

from mars.errors import UserError
from mars.serving import server
from mars.serving.engine_process import Settings

ROOT = Path(__file__).resolve().parents[3]


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"uvicorn is missing.*pip install starlette uvicorn"):
        server.serve(Settings(str(tmp_path)))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(server.PACKAGES.split()) == project["optional-dependencies"]["serve"]


def test_an_address_that_is_taken_is_refused():
    with server.bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="choose another with --host or --port"):
            server.bind("127.0.0.1", port)
