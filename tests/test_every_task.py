"""Every task: eight devices take the steps of one, up to rounding, and two processes, also
resumed, make the batches of one."""

import numpy as np
import pytest

from ctp_jax.prepare import __main__ as prepare
from tests import forks
from tests.every_task_steps import CONFIGS


@pytest.fixture(scope="module")
def data_dir(moving_shapes):
    directory = moving_shapes(12, 6)
    flags = ["--from=moving_shapes", "--method=dis", "--data_dir", directory]
    prepare.main(["flow", *flags])
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_steps_on_eight_devices_are_the_same(name, data_dir, tmp_path):
    """Up to the rounding of float32 drawing; batches in parts to the bit."""
    flags = "--xla_force_host_platform_device_count=8"
    arguments = [name, data_dir, tmp_path / "runs.npz"]
    forks.run(["-m", "tests.every_task_steps", *arguments], {"XLA_FLAGS": flags})
    runs = {"one": {}, "eight": {}}
    for path, value in np.load(tmp_path / "runs.npz").items():
        run, _, own = path.partition("/")
        runs[run][own] = value
    assert runs["one"].keys() == runs["eight"].keys()
    for own, value in runs["one"].items():
        np.testing.assert_allclose(
            value, runs["eight"][own], rtol=2e-4, atol=1e-5, err_msg=own
        )
