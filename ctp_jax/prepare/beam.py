"""Making shards with Apache Beam, on one machine or many: one element is one shard.

The workers need this package with the same versions, and the same paths: those of the
videos to read, `--data_dir` to write.
"""

import contextlib
import os
import pickle
from collections.abc import Callable, Sequence

from etils import epath

from ctp_jax.errors import UserError
from ctp_jax.prepare import provenance, shards
from ctp_jax.prepare import workers as workers_lib


def check(runner: str, options: Sequence[str]) -> None:
    """Raises `UserError` if Beam cannot make a pipeline of this runner and options."""
    try:
        _pipeline(runner, options)
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "apache_beam":
            raise UserError(
                f'--beam_runner={runner}: needs Apache Beam: pip install -e ".[beam]"'
            ) from error
        raise UserError(f"--beam_runner={runner}: {error}") from error
    except (ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--beam_runner={runner}: {reason}") from error


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
        folder: where to put the orders for the workers to read.
        watch: not used: the videos pass through other processes.

    Raises:
        Exception: what the runner raises when the pipeline fails.
    """
    del watch
    import apache_beam

    # The orders name every video: too much to be a part of the pipeline itself, of
    # which Dataflow takes 10 MB.
    place = epath.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{number:05d}.pickle" for number in range(len(orders))]
    for path, order in zip(paths, orders, strict=True):
        path.write_bytes(pickle.dumps(order))
    pipeline = _pipeline(runner, options)
    (
        pipeline
        | "Shards" >> apache_beam.Create([os.fspath(path) for path in paths])
        # Or runners fuse it with the next step, and one worker gets all.
        | "Deal" >> apache_beam.Reshuffle()
        | "Write" >> apache_beam.Map(write_one)
    )
    pipeline.run().wait_until_finish()
    place.rmtree()


def write_one(path: str) -> None:
    """Writes the shard of the order that is stored at the path.

    The videos are decoded in another process, so that one that crashes its decoder
    does not end the worker, which Beam would start again for the same shard.

    Raises:
        RuntimeError: other versions of packages than where the pipeline was started.
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
