"""Trains what a config says: `python -m ctp_jax.main --config=... --workdir=...`."""

from absl import flags

from ctp_jax import command
from ctp_jax.errors import UserError

FLAGS = flags.FlagValues()
CONFIG = command.define_config(FLAGS)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where everything of the run lies.", flag_values=FLAGS
)


def main(arguments):
    """Trains what a config says, and goes on where it was cut.

    python -m ctp_jax.main --config=configs/ucf_r3d.py --workdir=DIR [--config.x=y ...]
    """
    if arguments:
        raise UserError(f"{arguments[0]!r}: not a flag; flags begin with --")
    if CONFIG.value is None:
        raise UserError("--config is missing, e.g. --config=configs/ucf_r3d.py")
    if not WORKDIR.value:
        raise UserError("--workdir is missing: the folder for checkpoints and logs")
    command.use_compilation_cache()
    # Not above: a misspelt flag is answered before JAX has been imported.
    from ctp_jax.train import loop

    loop.train(CONFIG.value, WORKDIR.value)
    _write_report(CONFIG.value, WORKDIR.value)


def _write_report(config, workdir):
    """Draws clips and writes `report.html`; trouble here does not fail the run."""
    import jax

    from ctp_jax import report, visualize

    if jax.process_index() != 0:
        return
    try:
        if visualize.draws(config):
            visualize.save(visualize.draw(config, 6, workdir), workdir)
    except UserError as error:
        print(f"  no pictures: {error}", flush=True)
    try:
        print(f"  report       {report.write(workdir)}", flush=True)
    except UserError as error:
        print(f"  no report: {error}", flush=True)


if __name__ == "__main__":
    command.run(main, FLAGS)
