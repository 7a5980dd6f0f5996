"""Several processes as one run: how they talk, and how they end together.

Collectives on the devices wait for every process. So if one fails, or is asked to stop
before there is anything to save, it leaves a report with the coordinator; each process
has a thread that waits for such a report, prints it and ends the process. What is said
here goes through the key-value store of `jax.distributed`, not through the devices.

With one process everything here does nothing, or returns what it was given.
"""

import collections
import contextlib
import itertools
import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
from jax._src import distributed  # the store has no public name

from ctp_jax.errors import TryLater, UserError
from ctp_jax.train.distributed.cluster import Cluster

_HEARTBEAT = 60  # seconds until a machine that is silent counts as lost
_MEET = 600  # seconds to wait for the others at the start
_PATIENCE = 10  # seconds that process 0 waits for the others to have read a report
_GRACE = 1.0  # second, for a process that has said that it ends
_POLL = 5000  # milliseconds a wait lasts before Python gets a chance to look up
_REPORT = "ctp_jax/report"
_LOST = re.compile(
    r"gloo|NCCL|peer|UNAVAILABLE|heartbeat|coordination|Socket", re.IGNORECASE
)

_met = threading.Event()  # set once all have met: before, there is nobody to tell
_counters: dict[str, Iterator[int]] = collections.defaultdict(itertools.count)


@contextlib.contextmanager
def joined(cluster: Cluster | None) -> Iterator[None]:
    """The run inside is one of several processes; all leave together.

    An error on any of them, here or there, ends this process: it does not come back.

    Args:
        cluster: from `cluster.find`; None for a run of one process.
    """
    if cluster is None:
        if jax.process_count() > 1:
            raise UserError(
                f"{jax.process_count()} processes have found each other, but not through "
                "this program: start each with --coordinator, --process_count and "
                "--process_index"
            )
        yield
        return
    _initialize(cluster)
    watch = threading.Thread(target=_watch, daemon=True)
    watch.start()
    try:
        yield
        barrier("end")
    except BaseException as error:  # noqa: BLE001 (whatever it is, the others must know)
        _fail(error)
    if jax.process_index() == 0:
        _client().key_value_set(_REPORT, json.dumps(None))
    watch.join()
    jax.distributed.shutdown()


def compiled_together(program: Callable, name: str) -> Callable:
    """A jitted function that no process enters before all have compiled it.

    They may be minutes apart, and collectives wait for each other for half a minute.

    Args:
        program: from `jax.jit`; always called with arrays of the same shapes.
        name: of the program.
    """
    if jax.process_count() == 1:
        return program
    compiled = None

    def call(*arguments):
        nonlocal compiled
        if compiled is None:
            compiled = program.lower(*arguments).compile()
            barrier(f"compiled {name}")
        return compiled(*arguments)

    return call


def barrier(name: str) -> None:
    """Waits until every process has come to the barrier of this name."""
    gather(name, None)


def from_first(name: str, value: Any) -> Any:
    """Process 0's value (JSON) on every process."""
    if jax.process_count() == 1:
        return value
    key = f"ctp_jax/first/{name}/{next(_counters[f'first/{name}'])}"
    if jax.process_index() == 0:
        _client().key_value_set(key, json.dumps(value))
    return json.loads(_get(key))


def gather(name: str, value: Any) -> list[Any]:
    """Every process's value (JSON), in their order, on every process."""
    if jax.process_count() == 1:
        return [value]
    key = f"ctp_jax/{name}/{next(_counters[name])}"
    _client().key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    if jax.process_index() == 0:
        # One reader of all, or the store would be asked n * n times.
        values = [_get(f"{key}/{i}") for i in range(jax.process_count())]
        _client().key_value_set(f"{key}/all", f"[{','.join(values)}]")
    return json.loads(_get(f"{key}/all"))


def check_same(what: str, value: str, remedy: str) -> None:
    """Raises `UserError`, on every process, unless all have the same value.

    Args:
        what: the name of the value, for the message; the same everywhere.
        value: any text.
        remedy: what to do about it.
    """
    values = gather(f"same/{what}", [socket.gethostname(), value])
    for index, (host, other) in enumerate(values):
        if other != values[0][1]:
            raise UserError(
                f"{what}: {other} on process {index} ({host}), {values[0][1]} on process "
                f"0 ({values[0][0]}): {remedy}"
            )


def end_all(text: str, code: int, is_error: bool = True) -> NoReturn:
    """Ends every process with a message and an exit code; may be called by any thread.

    Args:
        text: one line.
        code: of every process.
        is_error: False if a stop was asked for.
    """
    text = f"error: {text}" if is_error else text
    if not _met.is_set():
        _say(text)
        os._exit(code)
    report = {
        "index": distributed.global_state.process_id,
        "host": socket.gethostname(),
        "text": text,
        "code": code,
    }
    # If there is a report, ours is most likely a consequence of what it is about.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().key_value_set(_REPORT, json.dumps(report))
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        report = json.loads(_client().blocking_key_value_get(_REPORT, _POLL)) or report
    _leave(report)


def _client() -> Any:
    return distributed.global_state.client


def _initialize(cluster: Cluster) -> None:
    """Meets the others. Raises `TryLater` if that fails."""
    # JAX's own listener to SIGTERM would take the place of ours.
    jax.config.update("jax_enable_preemption_service", False)
    # On CPUs, XLA's default scheduler starts collectives in an order of its own on each
    # process, and gloo, which pairs them by their order, ends the process.
    ordered = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ordered}".strip()
    # JAX finds the rest, and under Slurm it would also leave this process one GPU.
    where: dict[str, Any] = {"local_device_ids": []}
    if cluster.coordinator is not None:
        where = {
            "coordinator_address": cluster.coordinator,
            "num_processes": cluster.process_count,
            "process_id": cluster.process_index,
            "cluster_detection_method": "deactivate",
        }
    # JAX itself would end the process without a word.
    late = threading.Timer(
        _MEET,
        lambda: end_all(
            _not_met(cluster, f"{_MEET} s have passed"), TryLater.exit_code
        ),
    )
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **where,
            heartbeat_timeout_seconds=_HEARTBEAT,
            initialization_timeout=2 * _MEET,
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise TryLater(_not_met(cluster, reason)) from error
    finally:
        late.cancel()
    _met.set()


def _not_met(cluster: Cluster, reason: str) -> str:
    """The line that says what was looked for."""
    state = distributed.global_state  # which knows what JAX has found
    return (
        f"process {state.process_id} did not meet the others at "
        f"{state.coordinator_address}, as {cluster.source} says ({reason}): were all "
        "started, and can they reach it? --process_count=1 is a run of this one alone"
    )


def _get(key: str) -> str:
    """Waits for a key, for as long as it takes."""
    while True:
        try:
            return _client().blocking_key_value_get(key, _POLL)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _watch() -> None:
    """Waits for a report and ends the process with it."""
    try:
        report = json.loads(_get(_REPORT))
    except jax.errors.JaxRuntimeError:
        _leave(
            {
                "index": 0,
                "host": "the coordinator",
                "text": "error: contact was lost: was it killed? Start all again to go on",
                "code": 1,
            }
        )
    if report is not None:
        _leave(report)


def _fail(error: BaseException) -> NoReturn:
    """Tells every process of an error of this one."""
    code, text = 1, " ".join(str(error).split()) or "no message"
    if isinstance(error, UserError):
        code = error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        code, text = 130, "interrupted"
    elif isinstance(error, jax.errors.JaxRuntimeError) and _LOST.search(text):
        text = (
            f"contact with another process was lost ({text[:200]}): was it or its "
            "machine killed? Start all again to go on"
        )
    else:
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {text[:300]}"
    end_all(text, code)


_leaving = threading.Lock()


def _leave(report: dict[str, Any]) -> NoReturn:
    """Prints a report and ends this process, without waiting for other threads."""
    if not _leaving.acquire(blocking=False):
        threading.Event().wait()  # another thread is at it, and ends this one
    # Not from JAX's devices, which may not be there yet.
    ours = distributed.global_state.process_id
    count = distributed.global_state.num_processes
    who = f"process {report['index']} of {count} ({report['host']})"
    _say(f"{who}: {report['text']}")
    with contextlib.suppress(Exception):
        if ours == 0:
            # The store is in this process: the others must have read it.
            deadline = time.monotonic() + _PATIENCE
            for index in range(1, count):
                left = max(1, int(1000 * (deadline - time.monotonic())))
                _client().blocking_key_value_get(f"ctp_jax/left/{index}", left)
            # They end right after they said so; JAX aborts one that outlives the store.
            time.sleep(_GRACE)
        else:
            _client().key_value_set(f"ctp_jax/left/{ours}", "")
    os._exit(report["code"])


def _say(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
