"""Every test also checks every shape: jaxtyping's import hook, with beartype."""

import functools
import os
import shutil
import signal
import tempfile

import pytest

# Before JAX is imported. One thread a worker: there are more of these than cores.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A third of the suite's time is LLVM's, optimising programs that run for an instant.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Tests compile the same programs again and again: kept for the session. The process that
# starts first makes the folder; pytest-xdist's workers and the commands that tests run
# inherit its name. With a limit to its size, JAX locks it, so that no process reads what
# another is writing.
if "CTP_TESTS" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="ctp_jax_xla_")
    os.environ["CTP_TESTS"] = os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(8 << 30)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    # What tests write is kept in memory where there is enough of it (containers have 64 MB
    # there): a save of a checkpoint mostly waits for the disk.
    MEMORY = "/dev/shm"
    if os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 4 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
        OTHERS = tempfile.TemporaryDirectory(
            prefix="ctp_jax_tests_", dir=MEMORY, ignore_cleanup_errors=True
        )
        os.environ["TMPDIR"] = OTHERS.name
        tempfile.tempdir = None  # is looked up anew: pytest has asked for it before

from tests import checking, compiling, rare_collections

# A shell ignores SIGINT for what it starts in the background, and nohup SIGHUP, and so
# would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

checking.install()
compiling.quickly()
compiling.keep_everything()

from ctp_jax import modules
from ctp_jax.prepare import workers

# Of the few small videos of a test, two processes take longer to start than to encode.
# Where several are the subject, a test says how many.
encode_in_parallel = workers.encode_in_parallel
workers.encode_in_parallel = lambda items, workers: encode_in_parallel(
    items, workers or 1
)

modules.allow("tests.toy_task", "tests.tiny_network", "tests.train.recorder")
modules.allow("tests.models.own_network")


# Files that take longest: at the end one worker would be left alone with them. And those
# that wait most, while the other workers need the cores.
LONGEST = (
    "test_every_task.py",
    "test_end_to_end.py",
    "test_coordination.py",
    "test_bucket_layout.py",
    "test_bucket_runs.py",
    "test_retention.py",
    "test_manager.py",
    "test_renamed.py",
    "test_real_runs.py",
    "test_loop.py",
    "test_coclr.py",
    "test_bad_records.py",
    "test_pipeline.py",
    "test_base.py",
    "test_explain.py",
    "test_prepare.py",
    "test_end_to_end_c3d.py",
    "test_work.py",
    "test_backbones.py",
    "test_layers.py",
)


def pytest_collection_modifyitems(items):
    """pytest-xdist gives the workers whole files, in this order."""
    order = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish():
    rare_collections.begin()


@pytest.fixture(scope="session")
def moving_shapes(tmp_path_factory):
    """`moving_shapes(12, 6)` is a `data_dir` with so many videos to train and to test on.

    It is prepared once; nobody may change what is there.
    """
    from ctp_jax.prepare import __main__ as prepare

    @functools.cache
    def prepared(train, test):
        data_dir = str(tmp_path_factory.mktemp("moving_shapes"))
        flags = [f"--train_videos={train}", f"--test_videos={test}"]
        prepare.main(["moving_shapes", *flags, "--data_dir", data_dir])
        return data_dir

    return prepared


@pytest.fixture(scope="module")
def optimized():
    """Programs are compiled as users have them, which takes three times as long.

    For the operations, a run from end to end, and the ways to compute a convolution.
    """
    import jax

    def switch(disabled):
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(disabled))
        jax.config.update("jax_disable_most_optimizations", disabled)
        jax.clear_caches()  # or programs of before and after would be the same

    before = jax.config.read("jax_disable_most_optimizations")
    switch(False)
    yield
    switch(before)
