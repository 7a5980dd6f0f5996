"""Trains what a config says: `python -m ctp_jax.main --config=... --workdir=...`."""

import contextlib
import os
import signal
import sys

from absl import flags

from ctp_jax import cli
from ctp_jax.errors import UserError

FLAGS = flags.FlagValues()
CONFIG = cli.define_config(FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where everything of the run lies.", flag_values=FLAGS
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Of several processes: HOST:PORT of process 0, or auto on TPUs. Not needed under "
    "Slurm, see launch/README.md.",
    flag_values=FLAGS,
)
COUNT = flags.DEFINE_integer(
    "process_count", None, "How many processes there are.", flag_values=FLAGS
)
INDEX = flags.DEFINE_integer(
    "process_index", None, "Which of them this is, from 0.", flag_values=FLAGS
)
STOPPED = flags.DEFINE_integer(
    "stopped_exit_code",
    0,
    "Exit code of a run that SIGTERM or Ctrl-C stopped, which is saved and not finished: "
    "for schedulers that restart only what failed.",
    lower_bound=0,
    upper_bound=125,
    flag_values=FLAGS,
)


def main(arguments):
    """Trains what a config says, and goes on where it was cut.

    python -m ctp_jax.main --config=configs/ucf_r3d.py --workdir=DIR [--config.x=y ...]
    """
    signal.signal(signal.SIGTERM, _stop_at_once)  # until `Preemption` takes over
    if arguments:
        raise UserError(f"{arguments[0]!r}: not a flag; flags begin with --")
    if CONFIG.value is None:
        raise UserError("--config is missing, e.g. --config=configs/ucf_r3d.py")
    if not WORKDIR.value:
        raise UserError("--workdir is missing: the folder for checkpoints and logs")
    from ctp_jax.train.distributed import cluster

    meeting = cluster.find(COORDINATOR.value, COUNT.value, INDEX.value)
    cli.use_compilation_cache(small=meeting is None)
    # Not above: a misspelt flag is answered before JAX has been imported.
    from ctp_jax.train import loop
    from ctp_jax.train.distributed import coordination
    from ctp_jax.train.distributed.preemption import Preemption

    with Preemption(STOPPED.value) as preemption, coordination.joined(meeting):
        loop.train(CONFIG.value, WORKDIR.value, preemption=preemption)
        if not preemption.preempted:
            _write_report(CONFIG.value, WORKDIR.value)
    if preemption.preempted:
        sys.exit(STOPPED.value)


def _stop_at_once(number, frame):
    os.write(2, b"stopped by SIGTERM: nothing to save\n")
    os._exit(STOPPED.value)


def _write_report(config, workdir):
    """Draws clips and writes `report.html`; trouble here does not fail the run."""
    import jax

    from ctp_jax import report, visualize

    if jax.process_index() != 0:
        return
    with _only_said("no pictures"):
        visualize.save(visualize.draw(config, 6, workdir), workdir)
    with _only_said("no report"):
        print(f"  report       {report.write(workdir)}", flush=True)


@contextlib.contextmanager
def _only_said(what):
    """The run is finished and saved, whatever happens inside."""
    try:
        yield
    except UserError as error:
        print(f"  {what}: {error}", flush=True)
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200]
        print(f"  {what}: {type(error).__name__}: {reason}", flush=True)


if __name__ == "__main__":
    cli.run(main, FLAGS)
