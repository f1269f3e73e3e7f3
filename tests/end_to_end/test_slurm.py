"""The `ci` experiment through a Slurm cluster of one node with two GPUs that are none.

    apt-get install slurm-wlm munge && make test-slurm

A Slurm of its own is started in a folder of its own and stopped at the end, so nothing of the
machine is configured. Its node claims to be larger than this machine, so that what the profile asks
for fits; its GPUs are device files that nobody opens, which Slurm assigns like real ones.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.ci_experiment import environment
from tests.support.waiting import end_of, run, started, wait

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
SPEED = {"measure_wall_clock", "measure_speculative", "measure_live_tau"}
OVERLAY = """
resources:
  training: {small: {gpus: 1}, large: {gpus: 1}}
  evaluation_gpus: 1
"""
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
MpiDefault=none
MinJobAge=86400
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=512000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# Stands before Python on the path and notes when a rule's command ran, and with which devices.
NOTING_PYTHON = """#!/bin/sh
note() {{
  echo "$1 $(date +%s.%N) $SLURM_JOB_ID ${{CUDA_VISIBLE_DEVICES:-none}} $command" >> {log}
}}
command=$(echo "$*" | cut -c -60)
note start
{python} "$@"
status=$?
note end
exit $status
"""


# The Slurm plugin starts `srun` without the variables of Slurm, so also without SLURM_CONF.
FINDING_SRUN = """#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


class Command(NamedTuple):
    """One command of a rule, as it was noted: seconds since 1970, Slurm's devices."""

    start: float
    end: float
    devices: frozenset[str]
    words: list[str]

    @property
    def stage(self) -> str:
        return re.search(r'"stage":"(\w+)"', " ".join(self.words))[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a running cluster; not tmp_path, because names of sockets must be short."""
    if os.getuid() != 0 or not all(map(shutil.which, PROGRAMS)):
        pytest.skip("needs root and Slurm (apt-get install slurm-wlm munge)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for number in range(2):
        os.mknod(folder / f"gpu{number}", 0o20666, os.makedev(1, 3))  # another /dev/null
    key = folder / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    host = socket.gethostname().partition(".")[0]
    facts = {"host": host, "folder": folder, "port": free_port(), "node_port": free_port()}
    (folder / "slurm.conf").write_text(SLURM_CONF.format(**facts))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    commands = [
        [
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/munge.socket",
            *munge,
        ],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", host],
    ]
    with ExitStack() as daemons:
        for command in commands:
            log = folder / f"{command[0]}.out"
            daemon = daemons.enter_context(started(command, log, cwd=folder))
            daemons.callback(stop, daemon, folder)
            time.sleep(0.5)
        daemons.callback(run, ["scancel", "--user=root"], folder, cwd=folder)
        status = wait(daemon, folder, until=is_idle)
        assert status is None, "\n".join(map(end_of, folder.glob("*.out")))
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


def stop(daemon: subprocess.Popen, folder: Path) -> None:
    daemon.terminate()
    wait(daemon, folder)


def is_idle() -> bool:
    done = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
    return done.stdout.strip() == "idle"


def noted(log: Path) -> list[Command]:
    """The commands of all rules; each starts and ends once."""
    started: dict[str, tuple[float, str, str]] = {}
    commands = []
    for line in log.read_text().splitlines():
        word, second, job, devices, command = line.split(" ", 4)
        if word == "start":
            assert job not in started, f"Slurm job {job} runs two commands"
            started[job] = (float(second), devices, command)
        else:
            begin, devices, command = started[job]
            used = frozenset(devices.split(",")) - {"none", "NoDevFiles"}
            commands.append(Command(begin, float(second), used, command.split()))
    assert len(commands) == len(started)
    return commands


def overlap(one: Command, other: Command) -> bool:
    return one.start < other.end and other.start < one.end


@pytest.mark.slow
def test_slurm_gives_every_job_devices_of_its_own(slurm: Path, project: Path, tmp_path: Path):
    (tmp_path / "gpus.yaml").write_text(OVERLAY)
    variables = environment(project)
    log, programs = tmp_path / "commands", tmp_path / "bin"
    programs.mkdir()
    (programs / "python").write_text(NOTING_PYTHON.format(log=log, python=sys.executable))
    (programs / "srun").write_text(FINDING_SRUN.format(folder=slurm, srun=shutil.which("srun")))
    for program in programs.iterdir():
        program.chmod(0o755)
    configurations = [str(project / "config/ci.yaml"), str(tmp_path / "gpus.yaml")]
    manifests = [f"results/ci/speed/{name}/manifest.json" for name in ("wall_clock", "speculative")]
    done = run(
        [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(project / "Snakefile")),
            *("--profile", str(project / "workflow/profiles/slurm"), "--nolock"),
            *("--configfile", *configurations),
            # This machine has two cores and no accounting, and is in a hurry.
            *("--cores", "2", "--slurm-status-command", "squeue"),
            *("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10"),
            *("--", "default", *manifests),
        ],
        tmp_path,
        cwd=tmp_path,
        env={**variables, "PATH": f"{programs}:{variables['PATH']}"},
    )
    assert done.returncode == 0, done.stdout[-6000:]
    commands = noted(log)
    with_gpu = [one for one in commands if one.words[one.words.index("with-gpus") + 1] != "0"]
    assert {"train", "evaluate", "measure_wall_clock"} <= {one.stage for one in with_gpu}
    for one in with_gpu:
        assert len(one.devices) == 1
        for other in with_gpu:
            assert one is other or not (overlap(one, other) and one.devices & other.devices)
    timed = [one for one in commands if one.stage in SPEED]
    assert len(timed) == len(SPEED)
    for one in timed:
        assert [other for other in commands if overlap(one, other)] == [one]
    assert {device for one in with_gpu for device in one.devices} == {"0", "1"}
    assert any(overlap(a, b) for a in with_gpu for b in with_gpu if a is not b)
    for file in (tmp_path / "results/ci/logs/evaluate").glob("*.log"):
        assert re.search(r"^GPUs: [01]$", file.read_text(), re.MULTILINE)
