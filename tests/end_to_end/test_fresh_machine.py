"""The README's two commands on a minimal Debian, by an ordinary user, from a clone without git.

    apt-get install mmdebstrap && pytest -m slow tests/end_to_end/test_fresh_machine.py

It takes root, which builds the machine as a folder and enters it, and Debian's packages. With
EXPERIMENT=ci in the environment it takes a few minutes less. How pip finds packages is taken
over from this machine, whatever that is; all else that the project needs it must bring itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.support.waiting import run

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"  # the oldest Debian with Python 3.11
PACKAGES = ("python3", "python3-venv", "make", "ca-certificates")
USER = "reader"
HOME = f"/home/{USER}"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Programs outside pip that find certificates and proxies by these.
NETWORK = r"(?i)(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE"
# Runs in namespaces of its own, so that nothing stays mounted and no process is left.
ENTER = """
set -e
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$root${1%/*}"; touch "$root$1"; fi
  mount --rbind "$1" "$root$1"
  shift
done
shift
exec chroot --userspec="$USER:$USER" "$root" "$@"
"""


def pip_options() -> dict[str, str]:
    """pip's settings here, from its files and the environment, as variables of the environment."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    options = {}
    # A variable wins over the settings of one command, these win over those of all.
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"(?m)^{section}\.([\w-]+)='(.*)'$", listed):
            options[f"PIP_{name.upper().replace('-', '_')}"] = value.replace("\\n", " ").strip()
    return options


def named_paths(variables: dict[str, str]) -> list[str]:
    """The files and folders of this machine that the values name, as paths or file:// addresses.

    An address is an index, whose pages may point to files beside it.
    """
    words = [word for value in variables.values() for word in re.split(r"\s+|:(?=/[^/])", value)]
    paths = {Path(word) for word in words if word.startswith("/")}
    paths |= {Path(word[7:]).parent for word in words if word.startswith("file:///")}
    return sorted(str(path) for path in paths if path.exists())


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Debian with a user, in whose home the project is."""
    if os.getuid() != 0:
        pytest.skip("needs root, to build a Debian and to enter it")
    for program in ("mmdebstrap", "unshare", "git"):
        if not shutil.which(program):
            pytest.skip(f"needs {program} (apt-get install mmdebstrap util-linux git)")
    folder = tmp_path_factory.mktemp("fresh")
    root = folder / "root"
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command += [f"--customize-hook=chroot $1 useradd --create-home {USER}", SUITE, str(root)]
    built = run(command, folder, cwd=folder)
    if built.returncode != 0:
        pytest.skip(f"no Debian could be built here: {built.stdout[-500:]}")
    for name in ("resolv.conf", "hosts"):
        shutil.copy(Path("/etc", name), root / "etc" / name)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as clone:
        clone.extractall(root / HOME[1:] / "clone", filter="data")
    command = ["chroot", str(root), "chown", "-R", f"{USER}:", HOME]
    subprocess.run(command, check=True)
    return root


def inside(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the machine, as the user, in the clone."""
    network = {name: value for name, value in os.environ.items() if re.fullmatch(NETWORK, name)}
    taken_over = network | pip_options()
    variables = {"HOME": HOME, "USER": USER, "PATH": PATH, **taken_over}
    for name in ("EXPERIMENT", "TEST_JOBS"):
        if name in os.environ:
            variables[name] = os.environ[name]
    entering = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh"]
    entering += [str(root), *named_paths(taken_over), "--"]
    user = ["/bin/sh", "-c", f'cd {HOME}/clone && exec "$@"', "sh"]
    return run(
        [*entering, *user, *command],
        root / HOME[1:],
        cwd=root,
        env=variables,
    )


@pytest.mark.slow
def test_both_commands_of_the_readme_work_on_a_fresh_machine(machine: Path):
    version = inside(machine, "python3", "-c", "import sys; print(sys.version_info >= (3, 11))")
    assert version.returncode == 0, version.stdout
    if version.stdout.strip() != "True":
        pytest.skip(f"Debian {SUITE} has a Python older than 3.11")
    for command in (["make", "reproduce"], ["make", "test"]):
        assert " ".join(command) in (ROOT / "README.md").read_text()
        done = inside(machine, *command)
        assert done.returncode == 0, done.stdout[-6000:]
    experiment = os.environ.get("EXPERIMENT", "tiny")
    assert (machine / HOME[1:] / f"clone/results/{experiment}/report.html").is_file()
