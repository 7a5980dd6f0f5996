"""Writes shards with Apache Beam, on one machine or many: one element is one shard.

The workers need the same versions of this package and its dependencies, and the same
paths: to the videos and to `--data_dir`.
"""

import contextlib
import os
import pickle
from collections.abc import Callable, Sequence

from etils import epath

from ctp_jax.errors import UserError, reason
from ctp_jax.prepare import provenance, shards
from ctp_jax.prepare import workers as workers_lib


def check(runner: str, options: Sequence[str]) -> None:
    """Raises `UserError` if Beam rejects the runner or its options."""
    try:
        _pipeline(runner, options)
    except ImportError as error:
        if (error.name or "").split(".")[0] != "apache_beam":
            raise UserError(f"--beam_runner={runner}: {error}") from error
        raise UserError(
            f'--beam_runner={runner}: needs Apache Beam: pip install -e ".[beam]"'
        ) from error
    except (ValueError, AttributeError) as error:
        raise UserError(f"--beam_runner={runner}: {reason(error)}") from error


def _pipeline(runner: str, options: Sequence[str]):
    import apache_beam
    from apache_beam.options.pipeline_options import PipelineOptions

    flags = [f"--{option}" for option in options]
    return apache_beam.Pipeline(runner=runner, options=PipelineOptions(flags))


def write_all(
    orders: Sequence[shards.Order],
    *,
    runner: str,
    options: Sequence[str],
    folder: str,
    watch: Callable | None = None,
) -> None:
    """Writes shards in a pipeline and waits for it.

    Args:
        orders: the shards.
        runner: name of a Beam runner.
        options: of the pipeline, `key=value` or `key`.
        folder: where the orders are stored for the workers to read.
        watch: not used: the videos are encoded in the workers.

    Raises:
        Exception: what the runner raises when the pipeline fails.
    """
    del watch
    import apache_beam

    # Orders name every video, and a pipeline of Dataflow has at most 10 MB: so the
    # pipeline holds their paths.
    place = epath.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{number:05d}.pickle" for number in range(len(orders))]
    for path, order in zip(paths, orders, strict=True):
        path.write_bytes(pickle.dumps(order))
    pipeline = _pipeline(runner, options)
    shard_paths = pipeline | apache_beam.Create([os.fspath(path) for path in paths])
    # Without the shuffle, runners fuse the steps and one worker writes all shards.
    dealt = shard_paths | apache_beam.Reshuffle()
    _ = dealt | apache_beam.Map(write_one)
    pipeline.run().wait_until_finish()
    place.rmtree()


def write_one(path: str) -> None:
    """Writes the shard whose order is stored at the path.

    The videos are decoded in a process of their own: a crash of the decoder would end
    the worker, and Beam would start it again for the same shard.

    Raises:
        RuntimeError: the versions of packages differ from those of the machine that
            started the pipeline.
    """
    order: shards.Order = pickle.loads(epath.Path(path).read_bytes())
    if provenance.versions() != order.versions:
        raise RuntimeError(
            f"this worker has {provenance.versions()}, the pipeline was started with "
            f"{order.versions}: install the same"
        )
    if not shards.is_whole(order):
        results = workers_lib.encode_in_parallel(order.items, workers=1)
        with contextlib.closing(results):
            shards.write(order, results)
