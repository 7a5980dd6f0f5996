"""Workers start whole or not at all, and leave signals of the terminal to their parent."""

import concurrent.futures
import functools
import multiprocessing
import os
import signal
import time

import pytest

from ctp_jax.prepare import workers


def blocked() -> str:
    """The signals that this thread does not hear."""
    return " ".join(
        sorted(each.name for each in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    )


def make_items(count):
    return [workers.Item(str(number), 0, blocked) for number in range(count)]


def test_workers_do_not_hear_what_a_terminal_sends():
    found = [result for _, result in workers.encode_in_parallel(make_items(3), 2)]
    assert found == ["SIGHUP SIGINT"] * 3
    assert blocked() == ""


def test_an_interrupt_while_a_worker_starts_leaves_none_behind(monkeypatch):
    """A worker that its pool does not know of takes the order to end from another one."""
    executor = concurrent.futures.ProcessPoolExecutor
    spawn, started = executor._spawn_process, []

    def interrupted(self):
        spawn(self)
        started.append(self)
        if len(started) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            blocked()  # a moment for its handler

    monkeypatch.setattr(executor, "_spawn_process", interrupted)
    results = workers.encode_in_parallel(make_items(9), 2)
    with pytest.raises(KeyboardInterrupt):
        list(results)
    assert len(started) == 2
    assert_all_end()


def test_busy_workers_drop_what_nobody_wants_any_more():
    """The first result is there; each is encoding another, and the next ones wait."""
    items = [workers.Item(str(number), 0, blocked) for number in range(2)]
    items += [workers.Item("slow", 0, functools.partial(time.sleep, 60))] * 7
    results = workers.encode_in_parallel(items, 2)
    next(results)
    results.close()
    assert_all_end()


def assert_all_end():
    for _ in range(200):
        if not multiprocessing.active_children():
            return
        time.sleep(0.1)
    raise AssertionError(multiprocessing.active_children())
