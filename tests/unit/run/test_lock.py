"""One training at a time writes into a run's folder."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from sciml.core.errors import ConfigError
from sciml.run import lock
from sciml.run.lock import NAME, SILENT_S, Holder, RunLock


@pytest.fixture
def ended():
    """A process of this host that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Holder.here(), pid=process.pid)


def held(folder, holder, silent_s=0.0):
    (folder / NAME).write_text(json.dumps(asdict(holder)))
    os.utime(folder / NAME, (time.time() - silent_s,) * 2)


def other(**changes):
    return replace(Holder.here(), host="elsewhere", **changes)


def test_it_is_there_while_it_is_held(tmp_path):
    one = RunLock(tmp_path)
    assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    one.release()
    one.release()
    assert not list(tmp_path.iterdir())


def hold(folder, ready, end):
    one = RunLock(folder)
    ready.set()
    end.wait(60)
    one.release()


def test_a_living_process_of_this_host_is_named_however_long_it_was_silent(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, end))
    process.start()
    assert ready.wait(60)
    os.utime(tmp_path / NAME, (0, 0))
    with pytest.raises(ConfigError, match=rf"resume: .* is being trained by process {process.pid} on .*; wait until"):
        RunLock(tmp_path)
    end.set()
    process.join()
    RunLock(tmp_path).release()


def test_a_dead_process_of_this_host_is_succeeded_at_once(tmp_path, ended):
    held(tmp_path, ended)
    RunLock(tmp_path).release()
    held(tmp_path, replace(Holder.here(), started=Holder.here().started - 100))  # its number was used again
    RunLock(tmp_path).release()


def test_another_host_is_believed_dead_only_after_no_sign_of_life(tmp_path):
    held(tmp_path, other(job="slurm-7"), silent_s=20)
    with pytest.raises(ConfigError, match=r"on elsewhere \(job slurm-7\), last sign of life 20 s ago; .* 40 s if it"):
        RunLock(tmp_path)
    held(tmp_path, replace(Holder.here(), processes="another container"), silent_s=1)
    with pytest.raises(ConfigError, match="last sign of life"):
        RunLock(tmp_path)
    held(tmp_path, other(), silent_s=SILENT_S + 1)
    RunLock(tmp_path).release()


def test_a_restarted_job_waits_for_its_own_holder_elsewhere_to_fall_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    held(tmp_path, other(job="slurm-7"), silent_s=SILENT_S - 0.5)
    RunLock(tmp_path).release()
    monkeypatch.setattr(lock, "SILENT_S", 0.5)
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.2)
    held(tmp_path, other(job="slurm-7"), silent_s=-60)  # it goes on giving signs
    with pytest.raises(ConfigError, match="is being trained by"):
        RunLock(tmp_path)


def test_signs_of_life_are_given_and_end_with_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.05)
    one = RunLock(tmp_path)
    os.utime(tmp_path / NAME, (0, 0))
    deadline = time.monotonic() + 20
    while (tmp_path / NAME).stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    one.release()


def test_of_many_that_find_a_dead_holder_one_succeeds(tmp_path, ended):
    held(tmp_path, ended)
    here, met = Holder.here(), []

    def take(number):
        try:
            one = RunLock.__new__(RunLock)
            one.file, one.holder = tmp_path / NAME, replace(here, host=f"host{number}")
            one._acquire()
            met.append(number)
        except ConfigError:
            pass

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(met) == 1
    assert json.loads((tmp_path / NAME).read_text())["host"] == f"host{met[0]}"


def test_a_process_may_open_its_own_run_again(tmp_path):
    one, again = RunLock(tmp_path), RunLock(tmp_path)
    again.release()
    one.release()
    assert not list(tmp_path.iterdir())


def test_half_a_file_is_no_holder_for_ever(tmp_path):
    (tmp_path / NAME).write_text("{")
    os.utime(tmp_path / NAME, (0, 0))
    RunLock(tmp_path).release()


def test_it_needs_no_links(tmp_path, monkeypatch, ended):
    def link(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
    held(tmp_path, ended)
    RunLock(tmp_path).release()
    held(tmp_path, other())
    with pytest.raises(ConfigError, match="is being trained"):
        RunLock(tmp_path)
