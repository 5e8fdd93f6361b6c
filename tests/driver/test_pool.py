"""The local executor and its pool when workers die with nothing to do, cannot start, or stop amid a word."""

from __future__ import annotations

import errno
import os
import signal
from multiprocessing import Pipe

import numpy as np
import pytest

from fanin.datasets import Dataset, Split, open_shared
from fanin.driver import pool as pool_module
from fanin.driver.executors.local import LocalExecutor
from fanin.driver.executors.protocol import MAX_STILLBORN, WorkersError
from fanin.driver.messages import Died, Finished, Noticed, Ready
from fanin.driver.pool import Handle, Pool


class Process:
    """A process that does nothing."""

    def __init__(self, code=1):
        self.code, self.killed, self.waited = code, False, False

    def kill(self):
        self.killed = True

    def wait(self, timeout=None):
        self.waited = True
        return self.code


class Scripted:
    """A pool whose workers say what a script says, one list at each look; it counts who was replaced and dropped."""

    def __init__(self, workers, *looks):
        self.workers, self.looks = workers, list(looks)
        self.replaced, self.dropped = [], []

    def __len__(self):
        return self.workers

    def answers(self, seconds):
        yield from self.looks.pop(0)

    def replace(self, handle):
        self.replaced.append(handle)

    def drop(self, handle):
        self.dropped.append(handle)
        self.workers -= 1


@pytest.fixture
def heard(tmp_path):
    """An executor at a scripted pool, after all looks: what it passed on, and the pool."""

    def hear(workers, *looks, give=()):
        executor = LocalExecutor(DATA, "cpu", workers)
        executor._pool = pool = Scripted(workers, *looks)
        executor._folder = tmp_path
        events = []
        for look in looks:
            executor.wait(lambda cohort, event: events.append((cohort, event)), None)
            for cohort in give if look is looks[0] else ():
                executor.submit(cohort, None)
        return events, pool, executor

    return hear


class Silent(Handle):
    """A worker that takes what it is given."""

    def __init__(self):
        super().__init__(Process(), None)

    def give(self, word):
        pass


DEAD = Died("killed")
SPLIT = Split(np.eye(4, dtype=np.float32), np.arange(4) % 2)
DATA = Dataset("toy", SPLIT, SPLIT, classes=("a", "b"), scale=1.0, image_shape=None, source="here")


def test_a_new_worker_finds_the_data_though_temporary_files_were_cleared_away(heard, tmp_path):
    events, pool, executor = heard(1, [(Silent(), Ready({}))], give=["cohort"])
    assert list(tmp_path.iterdir()) == []
    pool.looks = [[(next(iter(executor._running)), DEAD)]]
    executor.wait(lambda *event: events.append(event), None)
    assert events[-1] == ("cohort", DEAD)
    assert len(pool.replaced) == 1
    assert open_shared(tmp_path).fingerprint == DATA.fingerprint


def test_a_worker_that_dies_after_its_first_word_is_replaced(heard):
    """While the driver was busy it got ready and was killed: without another one the run would wait for ever."""
    worker = Silent()
    events, pool, executor = heard(1, [(worker, Ready({})), (worker, DEAD)])
    assert [event for _, event in events] == [Ready({})]
    assert (pool.replaced, pool.dropped) == ([worker], [])
    assert not executor.free()


def test_where_new_workers_keep_dying_the_others_go_on(heard):
    good, bad = Silent(), [Silent() for _ in range(MAX_STILLBORN)]
    events, pool, _ = heard(2, [(good, Ready({}))], [(b, DEAD) for b in bad], give=["cohort"])
    assert (pool.replaced, pool.dropped) == (bad[:-1], bad[-1:])
    assert events[1:] == [(None, Noticed("a worker cannot start, and the run goes on with fewer: killed"))]
    with pytest.raises(WorkersError, match="workers cannot start: killed"):
        heard(1, [(b, DEAD) for b in bad])


def test_deaths_at_the_start_are_forgotten_when_a_worker_has_finished_something(heard):
    good, bad = Silent(), [Silent() for _ in range(2 * (MAX_STILLBORN - 1))]
    half = len(bad) // 2
    looks = [(b, DEAD) for b in bad[:half]], [(good, Finished([]))], [(b, DEAD) for b in bad[half:]]
    events, pool, _ = heard(2, [(good, Ready({}))], *looks, give=["cohort"])
    assert pool.replaced == bad
    assert pool.dropped == []
    assert events[1:] == [("cohort", Finished([]))]


def test_a_pool_that_cannot_have_all_its_workers_ends_those_it_has(monkeypatch):
    started = []

    def popen(*_, **__):
        if len(started) == 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(Process())
        return started[-1]

    monkeypatch.setattr(pool_module.subprocess, "Popen", popen)
    with pytest.raises(WorkersError, match=r"cannot be started \(Resource temporarily unavailable\); 2 are running"):
        Pool("setup", 3)
    assert [(p.killed, p.waited) for p in started] == [(True, True)] * 2


def test_a_worker_that_dies_before_it_is_told_anything_is_a_dead_worker(monkeypatch):
    """Its end of the connection is closed before the first word is sent."""
    monkeypatch.setattr(pool_module.subprocess, "Popen", lambda *_, **__: Process(code=7))
    monkeypatch.setattr(Handle, "give", lambda self, word, give=Handle.give: (closed(self), give(self, word)))
    with Pool("setup", 1) as pool:
        ((handle, answer),) = pool.answers(10)
        assert answer == Died("its worker process ended with exit code 7")
        pool.drop(handle)


def closed(handle):
    with pytest.raises(BrokenPipeError):  # the pool has closed it already: nobody has inherited it
        handle.connection.send("word")


def test_a_word_that_ctrl_c_has_cut_is_not_read_on_in_the_middle():
    """What follows would be taken for the length of a word, and be waited for."""

    def interrupt(*_):
        raise KeyboardInterrupt

    def hang(*_):
        raise AssertionError("it reads on in the middle of a word")

    ours, theirs = Pipe()
    process = Process()
    with Pool(None, 0) as pool, theirs:
        pool._take_on(Handle(process, ours))
        os.write(theirs.fileno(), (1000).to_bytes(4, "big") + bytes(500))
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                list(pool.answers())
            os.write(theirs.fileno(), bytes([0, 0, 1, 0]) * 20)
            signal.signal(signal.SIGALRM, hang)
            signal.setitimer(signal.ITIMER_REAL, 5)
            assert list(pool.answers(0)) == []
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert process.killed
