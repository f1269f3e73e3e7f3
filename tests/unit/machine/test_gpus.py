"""No device is used twice at a time, a killed job frees its own, training has a process on each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mars.config.experiment import load_experiment
from mars.errors import UserError
from mars.machine.gpus import launch_command, lock_folder, run_with_gpus, take, visible_gpus
from tests.support.waiting import wait

ROOT = Path(__file__).resolve().parents[3]

# A job takes devices and turns into another program, as `mars with-gpus` does; that one says so.
JOB = """
import os, sys
from pathlib import Path
from mars.machine.gpus import take
folder, count, log, seconds = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
devices = take(count, ["0", "1", "2"], folder)
work = '''
import json, sys, time
log, seconds, devices = sys.argv[1:]
def say(word):
    with open(log, "a") as stream:
        stream.write(json.dumps([time.monotonic(), word, devices.split(",")]) + chr(10))
say("start"); time.sleep(float(seconds)); say("end")
'''
os.execv(sys.executable, [sys.executable, "-c", work, log, seconds, ",".join(devices)])
"""


def start(folder: Path, count: int, seconds: float) -> subprocess.Popen:
    arguments = [str(folder), str(count), str(folder.parent / "log"), str(seconds)]
    return subprocess.Popen([sys.executable, "-c", JOB, *arguments], cwd=ROOT)


def events(folder: Path) -> list[tuple[float, str, list[str]]]:
    log = folder.parent / "log"
    return sorted(map(json.loads, log.read_text().splitlines())) if log.exists() else []


def test_jobs_side_by_side_have_different_devices(tmp_path):
    folder = tmp_path / "locks"
    jobs = [start(folder, count, 0.3) for count in (1, 2, 1, 3, 1, 2)]
    assert [wait(job, tmp_path) for job in jobs] == [0] * 6
    used: set[str] = set()
    for _, word, devices in events(folder):
        if word == "start":
            assert not used & set(devices)
            used |= set(devices)
        else:
            used -= set(devices)
    assert sorted(len(devices) for _, word, devices in events(folder) if word == "start") == [
        *(1, 1, 1, 2, 2, 3)
    ]


def test_a_killed_job_frees_its_devices(tmp_path):
    folder = tmp_path / "locks"
    first = start(folder, 3, 600)
    assert wait(first, tmp_path, until=lambda: events(folder)) is None
    second = start(folder, 3, 0)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)  # all are taken
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert wait(second, tmp_path) == 0


LAUNCHED = """
import os, time
from mars.machine.gpus import end_with_parent
parent = os.getppid()
end_with_parent()
print("started", flush=True)
while os.getppid() == parent:
    time.sleep(0.05)
time.sleep(1)  # a signal that is sent arrives first
print("survived")
"""
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_a_process_of_a_killed_launcher_ends_too():
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, LAUNCHED], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "started\n"
        launcher.kill()
        assert launcher.stdout.read() == ""  # up to the end of the last process that can write


def test_the_pool_is_what_the_scheduler_or_the_user_assigned(monkeypatch):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, MIG-x/1"}) == ["3", "MIG-x/1"]
    for none in ("", "-1", "NoDevFiles"):
        assert visible_gpus({"CUDA_VISIBLE_DEVICES": none}) == []
    monkeypatch.setenv("PATH", "")
    assert visible_gpus({}) == []  # no driver here
    assert lock_folder({"SLURM_JOB_ID": "7"}) != lock_folder({"SLURM_JOB_ID": "8"})


def test_more_devices_than_there_are_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="3 GPUs are wanted and there are 2"):
        take(3, ["0", "1"], tmp_path)


def test_training_on_several_gpus_is_launched_with_a_process_on_each():
    command = launch_command(["run", "--spec", "{}"], 4)
    assert "--nproc-per-node=4" in command
    assert command[-5:] == ["-m", "mars", "run", "--spec", "{}"]


@pytest.mark.parametrize("count", [0, 1])
def test_everything_else_is_one_process(count):
    assert launch_command(["run"], count) == [sys.executable, "-m", "mars", "run"]


@pytest.mark.parametrize("assigned", ["5,6", ""])
def test_a_job_takes_at_most_what_there_is(assigned, monkeypatch, tmp_path):
    turned = {}
    monkeypatch.setattr(os, "execve", lambda *arguments: turned.update(zip("pce", arguments)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", assigned)
    monkeypatch.setattr("mars.machine.gpus.lock_folder", lambda: tmp_path)
    run_with_gpus(["run"], 8)
    if assigned:
        assert turned["e"]["CUDA_VISIBLE_DEVICES"] == assigned
        assert "torch.distributed.run" in turned["c"]
    else:
        assert not turned, "without a GPU the verb runs in the process that is there"


def test_the_verb_turns_into_another_one_with_its_options(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "4,5", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "mars", "with-gpus", "1", "why", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "GPUs: 4\n"
    assert "why" in done.stdout


def test_gpus_are_part_of_no_spec():
    from mars.training.stage import TRAIN

    paper = load_experiment(ROOT / "config/paper.yaml")
    without = paper.model_copy(update={"resources": type(paper.resources)()})
    assert TRAIN.resolve(paper, model="ar-sft-7B") == TRAIN.resolve(without, model="ar-sft-7B")
