"""What the loop waits for: the device must never wait for the host.

Metrics of a step are stood in for by objects that write down who asks for their values;
so do the functions that send a batch and start a step.
"""

import jax
import numpy as np
import pytest

from ctp_jax.train import loop, step
from ctp_jax.train import mesh as mesh_lib
from tests.toy_data import opener, toy_config


class Watched:
    """A metric of a step, to JAX and NumPy like any other array."""

    def __init__(self, value, number, events):
        self._value, self._number, self._events = value, number, events
        self.shape, self.dtype = value.shape, value.dtype

    @property
    def __class__(self):
        return jax.Array  # for those who check

    def _seen(self):
        self._events.append(("wait", self._number))
        return self._value

    def block_until_ready(self):
        self._seen().block_until_ready()
        return self

    def __array__(self, dtype=None, copy=None):
        return np.array(self._seen(), dtype)

    def __float__(self):
        return float(self._seen())

    def __bool__(self):
        return bool(self._seen())


def run(monkeypatch, workdir, **fields):
    """Events of a run, in order and each once: ('send' | 'start' | 'wait', step)."""
    events = []
    make, put = step.make_train_step, mesh_lib.put

    def watched_put(batch, mesh):
        events.append(("send", sum(kind == "send" for kind, _ in events)))
        return put(batch, mesh)

    def watched_make(*arguments):
        program = make(*arguments)

        def train_step(state, batch):
            number = 1 + sum(kind == "start" for kind, _ in events)
            events.append(("start", number))
            # Nothing but the batch comes from the host, and that was sent.
            with jax.transfer_guard("disallow" if number > 1 else "allow"):
                state, metrics = program(state, batch)
            return state, {
                name: Watched(value, number, events) for name, value in metrics.items()
            }

        return train_step

    monkeypatch.setattr(loop.mesh_lib, "put", watched_put)
    monkeypatch.setattr(loop.step, "make_train_step", watched_make)
    config = toy_config(
        **{"checkpoint_every": 100.0, "data.eval_split": "", "keep_checkpoints": 1},
        **fields,
    )
    loop.train(config, workdir, opener())
    # The first batch was also sent for the start, to make the state.
    return list(dict.fromkeys(event for event in events if event != ("send", 0)))


def test_between_log_lines_the_next_step_is_queued_before_one_is_waited_for(
    monkeypatch, tmp_path
):
    events = run(monkeypatch, tmp_path, log_every=100, steps=12)
    # The first step is waited for, to say how long it took to compile.
    assert events[:3] == [("send", 1), ("start", 1), ("wait", 1)]
    middle = [
        event
        for number in range(2, 13)
        for event in (("send", number), ("start", number), ("wait", number - 1))
    ]
    middle.remove(("wait", 1))
    # The end: a log line and a checkpoint.
    assert events[3:] == [*middle, ("wait", 12)]


def test_a_log_line_waits_for_its_own_step_and_no_other_does(monkeypatch, tmp_path):
    events = run(monkeypatch, tmp_path, log_every=5, steps=12)
    waited_at_once = [
        number
        for number in range(1, 13)
        if ("start", number + 1) not in events
        or events.index(("wait", number)) < events.index(("start", number + 1))
    ]
    assert waited_at_once == [1, 5, 10, 12]


def test_a_batch_is_sent_without_waiting_for_it(monkeypatch):
    """Neither for what is sent, nor array by array for the device."""

    def no(*arguments):
        raise AssertionError("waited")

    monkeypatch.setattr(jax, "block_until_ready", no)
    monkeypatch.setattr(jax, "device_get", no)
    mesh = mesh_lib.make_mesh()
    batch = {"frames": np.arange(8.0), "plan": {"shape": np.arange(4)}}
    with jax.transfer_guard_device_to_host("disallow"):
        sent = mesh_lib.put(batch, mesh)
    assert sent["plan"]["shape"].sharding == mesh_lib.over_batch(mesh)
    np.testing.assert_array_equal(sent["frames"], batch["frames"])


def test_the_guard_would_see_a_transfer():
    with (
        jax.transfer_guard("disallow"),
        pytest.raises(Exception, match="Disallowed host-to-device transfer"),
    ):
        jax.numpy.ones(3) + np.ones(3)
