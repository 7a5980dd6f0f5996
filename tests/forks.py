"""Python processes that need not import anything: they are forked from one that has.

Importing JAX and TensorFlow takes longer than what many tests run. In the process that has
imported them (tests/forks_imports.py) no thread runs, and JAX has not looked for devices.
"""

import atexit
import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.forks_imports"])


def start(arguments, environ=None):
    """Starts `python -m MODULE ...` or `python -c CODE ...`; a `subprocess.Popen`.

    Args:
        arguments: those of python.
        environ: in addition to that of the tests; not what JAX reads on import.
    """
    arguments = [str(each) for each in arguments]
    environ = {**os.environ, **(environ or {})}
    if sys.platform == "linux":
        return _Forked(arguments, environ)
    return subprocess.Popen(  # elsewhere, libraries may not survive a fork
        [sys.executable, *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(arguments, environ=None, timeout=300):
    """Runs it; its output and errors. It has to end with code 0."""
    process = start(arguments, environ)
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output
    return output


class _Forked:
    """What the tests use of `subprocess.Popen`."""

    def __init__(self, arguments, environ):
        reader, output = FORKS.Pipe(duplex=False)
        self._process = FORKS.Process(target=_run, args=(output, arguments, environ))
        with reader, output:
            self._process.start()
            self.stdout = os.fdopen(os.dup(reader.fileno()))
        self.send_signal = functools.partial(os.kill, self._process.pid)
        self.kill = self._process.kill

    @property
    def returncode(self):
        return self._process.exitcode

    def communicate(self, timeout):
        """Waits for the end; returns the output and None."""
        limit = threading.Timer(timeout, self.kill)
        limit.start()
        with self.stdout:
            output = self.stdout.read()
        self._process.join()
        limit.cancel()
        return output, None


def _run(output, arguments, environ):
    import jax

    os.environ.update(environ)
    # The server may have been started by a module that is compiled as for users.
    jax.config.update("jax_disable_most_optimizations", True)
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    kind, what, *rest = arguments
    sys.argv = [what if kind == "-m" else kind, *rest]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})  # noqa: S102
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
        sys.stdout.flush()
