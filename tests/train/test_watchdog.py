"""The watchdog reports a stalled input. Waits are real and short."""

import itertools
import threading
import time

import pytest

from ctp_jax.train.watchdog import Watchdog
from tests.launch.starting import wait_for

SECONDS = 0.2


@pytest.fixture
def watchdog():
    lines = []
    made = Watchdog(SECONDS, lines.append)
    yield made, lines
    made.close()


def test_a_stall_is_said_again_and_again_and_its_end_too():
    lines, times = [], []

    def say(line):
        times.append(time.monotonic() - began)
        lines.append(line)

    made = Watchdog(SECONDS, say)
    began = time.monotonic()
    with made.waiting("the batch of step 7"):
        wait_for(lambda: len(lines) >= 3)
    made.close()
    assert times[0] >= SECONDS
    # Each time after twice as long; the clock is read a moment later here than there.
    for before, after in itertools.pairwise(times[:3]):
        assert after > 1.2 * before
    for line in lines[:-1]:
        assert line.startswith("input: waiting for the batch of step 7 for ")
        assert "config.data.workers" in line and ", since " in line
    assert lines[-1].startswith("input: the batch of step 7 came after ")


def test_what_comes_in_time_is_not_mentioned():
    lines = []
    made = Watchdog(30.0, lines.append)
    for step in range(1000):
        with made.waiting(f"step {step}"):
            pass
    made.close()
    assert not lines


def test_waits_are_counted_from_their_own_beginning(watchdog):
    """Time between waits, that of the steps, does not count; each wait starts at 0."""
    made, lines = watchdog
    time.sleep(4 * SECONDS)
    assert not lines
    for what in ("first", "second"):
        seen = len(lines)
        with made.waiting(what):
            wait_for(lambda seen=seen: len(lines) > seen)
        assert lines[seen].startswith(f"input: waiting for {what} for ")
        assert lines[-1].startswith(f"input: {what} came after ")


def test_an_error_ends_the_wait(watchdog):
    made, lines = watchdog
    with pytest.raises(KeyError), made.waiting("step 1"):
        wait_for(lambda: lines)
        raise KeyError
    count = len(lines)
    time.sleep(4 * SECONDS)
    assert len(lines) == count
    assert "came after" not in lines[-1]


def test_there_is_one_thread_and_it_ends():
    before = threading.active_count()
    made = Watchdog(SECONDS, print)
    for step in range(50):
        with made.waiting(f"step {step}"):
            assert threading.active_count() == before + 1
    made.close()
    assert threading.active_count() == before
