"""The tests' own way of waiting: a silent process is hung, a slow one that gets on is not."""

import sys
import time

import pytest

from tests.support.waiting import run, started, wait

SLEEP = [sys.executable, "-c", "print('asleep', flush=True); import time; time.sleep(3600)"]


def test_a_silent_process_is_killed_and_its_log_is_shown(tmp_path):
    log = tmp_path / "log"
    with started(SLEEP, log, cwd=tmp_path) as process:
        assert wait(process, until=lambda: log.read_text()) is None
        with pytest.raises(AssertionError, match=r"is hung(?s:.)*asleep"):
            wait(process, log, quiet=0.3)
        assert process.poll() is not None


def test_a_process_that_writes_is_waited_for(tmp_path):
    begun = time.monotonic()

    def written() -> bool:
        """Stands in for the process: something is new at every look."""
        (tmp_path / str(time.monotonic())).touch()
        return time.monotonic() - begun > 1.5

    with started(SLEEP, tmp_path / "log", cwd=tmp_path) as process:
        assert wait(process, tmp_path, until=written, quiet=0.3) is None


def test_what_is_printed_to_both_streams_comes_back(tmp_path):
    code = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    done = run([sys.executable, "-c", code], cwd=tmp_path)
    assert (done.returncode, set(done.stdout.split())) == (3, {"one", "two"})
