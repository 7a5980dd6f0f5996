"""The flags of a command."""

from typing import Any

from absl import flags

# So that --help lists a flag under the module that defines it.
flags.disclaim_key_flags()


class Flags(flags.FlagValues):
    """The flags of one command; importing it does not affect another.

    Each method defines a flag: `OUT = FLAGS.string("out", "", "Folder for the results.")`.
    The value is `OUT.value` after the command line has been parsed.
    """

    def string(self, name: str, *about: Any) -> flags.FlagHolder:
        """Arguments: name, default, help text; so for all here but `choice`."""
        return flags.DEFINE_string(name, *about, flag_values=self)

    def strings(self, name: str, *about: Any) -> flags.FlagHolder:
        """May be given several times."""
        return flags.DEFINE_multi_string(name, *about, flag_values=self)

    def list(self, name: str, *about: Any) -> flags.FlagHolder:
        """Of strings with commas between them."""
        return flags.DEFINE_list(name, *about, flag_values=self)

    def boolean(self, name: str, *about: Any) -> flags.FlagHolder:
        """--NAME or --noNAME."""
        return flags.DEFINE_boolean(name, *about, flag_values=self)

    def choice(self, name: str, *about: Any) -> flags.FlagHolder:
        """Arguments: name, default, the possible values, help text."""
        return flags.DEFINE_enum(name, *about, flag_values=self)

    def integer(self, name: str, *about: Any, **bounds: int) -> flags.FlagHolder:
        """Bounds are `lower_bound` and `upper_bound`, both inclusive."""
        return flags.DEFINE_integer(name, *about, flag_values=self, **bounds)

    def number(self, name: str, *about: Any, **bounds: float) -> flags.FlagHolder:
        """As `integer`."""
        return flags.DEFINE_float(name, *about, flag_values=self, **bounds)
