"""Several processes as one run: how they exchange values and how they end together.

Collectives on the devices wait for every process. So a process that fails, or is stopped
before there is anything to save, writes a report to the coordinator. A thread in each
process waits for such a report, prints it and ends the process. Everything here uses the
key-value store of `jax.distributed`, not the devices.

In a run of one process these functions do nothing or return their argument.
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

from ctp_jax import terminal
from ctp_jax.errors import TryLater, UserError, explained
from ctp_jax.train.distributed.cluster import Cluster

_HEARTBEAT = 60  # seconds of silence until a process counts as lost
_TELL = 15  # seconds at the start until a process says that it waits for the others
_MEET = 600  # seconds until it gives up
_PATIENCE = 10  # seconds that process 0 waits until the others have read a report
_TOGETHER = 3  # seconds between processes that meet the same error
_GRACE = 1.0  # seconds for a process to end after it has read the report
_POLL = 5000  # milliseconds of a wait, between which Python can handle signals
_REPORT = "ctp_jax/report"
_LOST = re.compile(
    r"gloo|NCCL|peer|UNAVAILABLE|heartbeat|coordination|Socket", re.IGNORECASE
)
_OF_XLA = (jax.errors.JaxRuntimeError, ValueError)

_met = threading.Event()  # set once all processes are connected
_counters: dict[str, Iterator[int]] = collections.defaultdict(itertools.count)


@contextlib.contextmanager
def joined(cluster: Cluster | None) -> Iterator[None]:
    """The body runs as one of several processes, which end together.

    An error on any of them ends this process without returning.

    Args:
        cluster: from `cluster.find`; None for a run of one process.
    """
    if cluster is None:
        # Not `jax.process_count`, which needs devices: there may be none.
        count = distributed.global_state.num_processes
        if count > 1:
            raise UserError(
                f"{count} processes are connected, but not by this program: "
                "start each with --coordinator, --process_count and --process_index"
            )
        yield
        return
    _initialize(cluster)
    watch = threading.Thread(target=_watch, daemon=True)
    watch.start()
    try:
        yield
        barrier("end")
    except BaseException as error:  # noqa: BLE001 (the others must know)
        _fail(error)
    if jax.process_index() == 0:
        _client().key_value_set(_REPORT, json.dumps(None))
    watch.join()
    jax.distributed.shutdown()


def compiled_together(program: Callable, name: str) -> Callable:
    """A jitted function that no process calls before all have compiled it.

    Compilation may take minutes longer on one process than on another, while a
    collective waits half a minute for the other processes.

    Args:
        program: from `jax.jit`; always called with the same shapes.
        name: of the barrier.
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
    """Waits until every process has reached the barrier of this name."""
    gather(name, None)


def all_reach(name: str) -> bool:
    """Whether every process gets here within seconds, as after an error of all."""
    if jax.process_count() > 1:
        try:
            _client().wait_at_barrier(f"ctp_jax/{name}", 1000 * _TOGETHER)
        except jax.errors.JaxRuntimeError:
            return False
    return True


def from_first(name: str, value: Any) -> Any:
    """Returns the value (JSON) of process 0 on every process."""
    if jax.process_count() == 1:
        return value
    key = f"ctp_jax/first/{name}/{next(_counters[f'first/{name}'])}"
    if jax.process_index() == 0:
        _client().key_value_set(key, json.dumps(value))
    return json.loads(_get(key))


def gather(name: str, value: Any) -> list[Any]:
    """Returns the values (JSON) of all processes, in order, on every process."""
    if jax.process_count() == 1:
        return [value]
    key = f"ctp_jax/{name}/{next(_counters[name])}"
    _client().key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    if jax.process_index() == 0:
        # Only process 0 reads all values, or there would be n * n requests.
        values = [_get(f"{key}/{i}") for i in range(jax.process_count())]
        _client().key_value_set(f"{key}/all", f"[{','.join(values)}]")
    return json.loads(_get(f"{key}/all"))


def check_same(what: str, value: str, remedy: str) -> None:
    """Raises `UserError` on every process unless all have the same value.

    Args:
        what: name of the value, for the message; the same on all processes.
        value: any text.
        remedy: what to do about a difference.
    """
    values = gather(f"same/{what}", [socket.gethostname(), value])
    for index, (host, other) in enumerate(values):
        if other != values[0][1]:
            raise UserError(
                f"{what}: {other} on process {index} ({host}), {values[0][1]} on process "
                f"0 ({values[0][0]}): {remedy}"
            )


def end_all(text: str, code: int, is_error: bool = True) -> NoReturn:
    """Ends every process with a message and an exit code. Any thread may call this.

    Args:
        text: one line.
        code: of every process.
        is_error: False for a stop that was requested.
    """
    text = f"error: {text}" if is_error else text
    if not _met.is_set():
        terminal.write(text)
        os._exit(code)
    report = {
        "index": distributed.global_state.process_id,
        "host": socket.gethostname(),
        "text": text,
        "code": code,
    }
    # If there already is a report, our error is most likely a consequence of that one.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().key_value_set(_REPORT, json.dumps(report))
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        report = json.loads(_client().blocking_key_value_get(_REPORT, _POLL)) or report
    _leave(report)


def _client() -> Any:
    return distributed.global_state.client


def _initialize(cluster: Cluster) -> None:
    """Connects to the other processes; `TryLater` or `UserError` if that fails."""
    # JAX's own SIGTERM handler would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    # On CPUs, XLA's default scheduler may start collectives in another order on each
    # process. gloo pairs them by their order and would end the process.
    ordered = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ordered}".strip()
    # JAX finds the rest. Without this, it would give a process under Slurm one GPU only.
    where: dict[str, Any] = {"local_device_ids": []}
    if cluster.coordinator is not None:
        where = {
            "coordinator_address": cluster.coordinator,
            "num_processes": cluster.process_count,
            "process_id": cluster.process_index,
            "coordinator_bind_address": cluster.listen_address(terminal.write),
            "cluster_detection_method": "deactivate",
        }
    met = threading.Event()
    threading.Thread(target=_limit_wait, args=(cluster, met), daemon=True).start()
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
        met.set()
    _met.set()


def _limit_wait(cluster: Cluster, met: threading.Event) -> None:
    """Says what this process waits for, and ends it if that takes too long.

    JAX itself would be silent, and then end the process without a message.
    """
    for seconds in (min(_TELL, _MEET), _MEET - _TELL):
        if met.wait(max(0, seconds)):
            return
        if seconds == _TELL:
            reason = f"{_TELL} s have passed of {_MEET}"
            terminal.write(f"note: {_not_met(cluster, reason)}")
    end_all(_not_met(cluster, f"{_MEET} s have passed"), TryLater.exit_code)


def _not_met(cluster: Cluster, reason: str) -> str:
    """The message of a process that did not reach the others."""
    state = distributed.global_state  # holds what JAX has detected
    return (
        f"process {state.process_id} did not meet the others at "
        f"{state.coordinator_address}, from {cluster.source} ({reason}): check that all "
        "are started and can reach that address, or give --process_count=1 for a run of "
        "one process"
    )


def _get(key: str) -> str:
    """Waits for a key without a time limit."""
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
        text = "error: connection lost: start all processes again to resume"
        _leave({"index": 0, "host": "the coordinator", "text": text, "code": 1})
    if report is not None:
        _leave(report)


def _fail(error: BaseException) -> NoReturn:
    """Ends every process with the error of this one."""
    error = explained(error) or error
    code, text = 1, " ".join(str(error).split()) or "no message"
    if isinstance(error, UserError):
        code = error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        code, text = 130, "interrupted"
    # What XLA raises is a ValueError where Python asks for the truth of an array.
    elif isinstance(error, _OF_XLA) and _LOST.search(text):
        text = (
            f"connection to another process lost ({text[:200]}): start all processes "
            "again to resume"
        )
    else:
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {text[:300]}"
    end_all(text, code)


_leaving = threading.Lock()


def _leave(report: dict[str, Any]) -> NoReturn:
    """Prints a report and ends this process without waiting for its threads."""
    if not _leaving.acquire(blocking=False):
        threading.Event().wait()  # another thread ends this process
    # Not from `jax.process_index`, which needs devices: they may not exist yet.
    ours = distributed.global_state.process_id
    count = distributed.global_state.num_processes
    who = f"process {report['index']} of {count} ({report['host']})"
    sys.stdout.flush()
    terminal.write(f"{who}: {report['text']}")
    with contextlib.suppress(Exception):
        if ours == 0:
            # The store is in this process: it must live until the others have read it.
            deadline = time.monotonic() + _PATIENCE
            for index in range(1, count):
                left = max(1, int(1000 * (deadline - time.monotonic())))
                _client().blocking_key_value_get(f"ctp_jax/left/{index}", left)
            # They end right after that; JAX aborts a process that outlives the store.
            time.sleep(_GRACE)
        else:
            _client().key_value_set(f"ctp_jax/left/{ours}", "")
    os._exit(report["code"])
