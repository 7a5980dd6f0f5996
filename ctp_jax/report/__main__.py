"""Reports of runs: `python -m ctp_jax.report WORKDIR [WORKDIR ...] [--out=FILE]`."""

from ctp_jax import cli, terminal
from ctp_jax.errors import UserError, shown
from ctp_jax.flags import Flags

FLAGS = Flags()
OUT = FLAGS.string(
    "out",
    None,
    "The page to write; default: report.html in the workdir, for several runs "
    "comparison.html here.",
)


def main(arguments):
    """Writes the page of a run, or one that compares runs.

    python -m ctp_jax.report WORKDIR                   WORKDIR/report.html
    python -m ctp_jax.report WORKDIR WORKDIR [...]     comparison.html

    The comparison's table is printed, too. A page is one HTML file that opens without a network.
    """
    if not arguments:
        raise UserError("which run? e.g. python -m ctp_jax.report runs/ucf_r3d")
    terminal.announce("loading Matplotlib, which lists the fonts the first time")
    # Not above: a misspelt flag is answered before matplotlib has been imported.
    from ctp_jax import report

    if len(arguments) == 1:
        print(shown(report.write(arguments[0], OUT.value)))
    else:
        print(report.table(arguments))
        print(shown(report.compare(arguments, OUT.value or "comparison.html")))


if __name__ == "__main__":
    cli.run(main, FLAGS)
