"""Trains a config: `python -m ctp_jax.main --config=... --workdir=...`."""

import contextlib
import signal
import sys

from ctp_jax import cli, devices, terminal
from ctp_jax.errors import UserError, reason, shown
from ctp_jax.flags import Flags

FLAGS = Flags()
CONFIG = cli.define_config(FLAGS)
WORKDIR = FLAGS.string(
    "workdir",
    None,
    "Folder of the run: checkpoints, logs, encoder, report; on a disk, or gs:// or s3://.",
)
COORDINATOR = FLAGS.string(
    "coordinator",
    None,
    "For several processes: HOST:PORT of process 0. Not needed under Slurm and on TPUs, "
    "where JAX finds it; see launch/README.md.",
)
COUNT = FLAGS.integer(
    "process_count",
    None,
    "Number of processes; 1: a run of one process, whatever JAX finds.",
    lower_bound=1,
)
INDEX = FLAGS.integer(
    "process_index", None, "Index of this process, from 0.", lower_bound=0
)
STOPPED = FLAGS.integer(
    "stopped_exit_code",
    0,
    "Exit code of an unfinished run that a signal stopped, for schedulers that "
    "restart only failed runs.",
    lower_bound=0,
    upper_bound=125,
)


def main(arguments):
    """Trains a config, or resumes its run.

    python -m ctp_jax.main --config=configs/ucf_r3d.py --workdir=DIR [--config.x=y ...]
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # until `Preemption` takes over
        line = f"stopped by {number.name}: nothing to save"
        terminal.end_at_once(number, line, STOPPED.value)
    if arguments:
        raise UserError(f"{arguments[0]!r}: not a flag: flags begin with --")
    if CONFIG.value is None:
        raise UserError(
            "--config is missing: give one, e.g. --config=configs/ucf_r3d.py"
        )
    if not WORKDIR.value:
        raise UserError("--workdir is missing: name a folder for checkpoints and logs")
    from ctp_jax.train.distributed import cluster

    found = cluster.find(COORDINATOR.value, COUNT.value, INDEX.value)
    devices.prepare(small=found is None)
    # Imported here, so that a wrong flag is reported before JAX is imported.
    from ctp_jax.train import loop
    from ctp_jax.train.distributed import coordination
    from ctp_jax.train.distributed.preemption import Preemption

    with Preemption(STOPPED.value) as preemption, coordination.joined(found):
        devices.check()
        loop.train(CONFIG.value, WORKDIR.value, preemption=preemption)
        if not preemption.preempted:
            _write_report(CONFIG.value, WORKDIR.value)
    # Explicitly 0: whether its lines could be printed says nothing about a run.
    sys.exit(STOPPED.value if preemption.preempted else 0)


def _write_report(config, workdir):
    """Draws clips and writes `report.html`; an error here does not fail the run."""
    import jax

    from ctp_jax import report, visualize

    if jax.process_index() != 0:
        return
    if config.steps or config.epochs:  # otherwise, there is no checkpoint to draw with
        with _errors_printed("no pictures"):
            visualize.save(visualize.draw(config, 6, workdir), workdir)
    with _errors_printed("no report"):
        print(shown(f"  report       {report.write(workdir)}"), flush=True)
    with _errors_printed("no verdict"):
        print(shown("\n".join(report.last_words(workdir))), flush=True)


@contextlib.contextmanager
def _errors_printed(what):
    """Prints an error as one line, because the run is finished and saved."""
    try:
        yield
    except UserError as error:
        print(f"  {what}: {error}", flush=True)
    except Exception as error:  # noqa: BLE001
        print(f"  {what}: {type(error).__name__}: {reason(error)}", flush=True)


if __name__ == "__main__":
    cli.run(main, FLAGS)
