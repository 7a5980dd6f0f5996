"""What all benchmarks share."""

from tests import forks

SCRIPT = """
from benchmarks import measure
import jax
measure.run(lambda: print("on", jax.devices()[0].platform))
"""


def test_a_benchmark_starts_as_a_command_does():
    assert forks.run(["-c", SCRIPT]).splitlines()[-1] == "on cpu"
