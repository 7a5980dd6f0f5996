"""Runs commands in this process, one after another."""

from ctp_jax import cli


def call(command, *arguments):
    """Runs the command of a module with these arguments, and no flags of earlier calls."""
    command.FLAGS.unparse_flags()
    argv = [command.__name__, *map(str, arguments)]
    return command.main(cli.parse(argv, command.FLAGS, ""))
