"""Batches of chosen videos, for commands that look at a few: held-out ones, or files."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ctp_jax import config as config_lib
from ctp_jax.data.batch import Batch
from ctp_jax.errors import UserError
from ctp_jax.formatting import some
from ctp_jax.storage import buckets, files

Videos = int | Sequence[str] | Sequence[pathlib.Path]
"""How many held-out videos, evenly spread over the split; or which; or files."""


def adapt(config: ConfigDict, videos: Videos, data_dir: str = "") -> ConfigDict:
    """The config of a run, for one test clip of each of some held-out videos.

    Args:
        config: is changed.
        videos: see `Videos`.
        data_dir: where the data are, if not where the run had them.
    """
    config.batch_size, config.data.fraction = 1, 1.0
    config.data.data_dir = data_dir or config.data.data_dir
    config.data.eval_split = config.data.eval_split or config.data.split
    config.data.eval_videos = videos if isinstance(videos, int) else 0
    if "test" in config:
        config.test.num_clips = 1
    return config


def batches(task: Any, videos: Videos, workdir: str) -> Iterator[tuple[str, Batch]]:
    """Names and batches of one video each; the task has its classes after the first.

    Args:
        task: of the adapted config, a `ctp_jax.tasks.base.Task`.
        videos: see `Videos`.
        workdir: of the run, whose checkpoint knows the classes.

    Raises:
        UserError: the data, a video or the checkpoint is not there.
    """
    if not isinstance(videos, int) and isinstance(videos[0], pathlib.Path):
        from ctp_jax.train.checkpoints import restore

        place = buckets.place(workdir)
        _, meta = restore.arrays(place)
        restore.check_meta(place, meta, {"class_names": [str]})
        task.class_names = task.class_names or tuple(meta["class_names"])
        for path in map(pathlib.Path, videos):
            yield path.name, read_file(path, task)
        return
    from ctp_jax.tasks import base  # imports JAX

    opener = functools.partial(_select, videos)
    source = base.open_pipeline(task.config, task, False, 0, 1, opener=opener)
    task.see_data(source.whole, None)
    for batch in source.eval_batches():
        yield str(source.records.ids[batch["index"][0]]), batch


def _select(videos: Any, config, spec, plan, train, *share):
    """`ctp_jax.data.pipeline.open_pipeline` of the chosen videos."""
    from ctp_jax.data import pipeline, records

    data = config.data
    stream = data.get("stream", "rgb")
    whole = records.open_records(data.name, data.eval_split, data.data_dir, stream)
    place, known = f"{data.name}, split {data.eval_split!r},", whole.ids.tolist()
    opened = whole
    # Videos may have numbers as names.
    names = [str(videos)] if isinstance(videos, int) else videos
    if not isinstance(videos, int) or names[0] in known:
        numbers = [find(name, known, "videos", place) for name in names]
        opened = records.select(whole, np.array(numbers))
    source = pipeline.Pipeline(config, spec, plan, opened, train, *share)
    source.whole = whole  # chosen ones may all be of one class
    return source


def find(name: str, known: Sequence[str], flag: str, place: str) -> int:
    """The number of a name; `UserError` if it is not known."""
    if name not in known:
        hint = config_lib.did_you_mean(name, known) or f": it has {some(known)}"
        raise UserError(f"--{flag}={name}: {place} has none of that name{hint}")
    return list(known).index(name)


def boxes(batch: Batch, clip: int) -> np.ndarray:
    """Boxes of a clip in a batch of one video, (n, t, 4), NaN where there is none."""
    annotations = batch["annotations"]
    # Tasks that make their labels turn or reorder clips: boxes do not follow.
    if "boxes" not in annotations or "label" in batch["plan"]:
        return np.zeros((0, batch["times"].shape[-1], 4))
    found = annotations["boxes"][0, clip].astype(np.float64)
    found = found.reshape(len(found), -1, 4)
    if "visibility" in annotations:
        found[~(annotations["visibility"][0, clip] > 0)] = np.nan
    return found.swapaxes(0, 1)


def read_file(path: pathlib.Path, task: Any) -> Batch:
    """A batch of one held-out video, as preparation and the pipeline would make it.

    Args:
        path: a file that FFmpeg can read.
        task: says which clips it needs, and plans them.

    Raises:
        UserError: the file cannot be read, or is too short for the task.
    """
    # Imported here: they import FFmpeg and TensorFlow.
    from ctp_jax.data import one_video
    from ctp_jax.own_videos import reader
    from ctp_jax.prepare.video import VideoError

    spec = task.clip_spec(False)
    if spec.other_stream or task.config.data.get("stream", "rgb") == "flow":
        raise UserError(f"{path}: has no stored flow: name videos of the data set")

    def read(choose: Callable[[int], np.ndarray]) -> np.ndarray:
        def long_enough(count: int, fps: float) -> np.ndarray:
            if count < spec.min_frames:
                raise VideoError(
                    f"{count} frames: the clips of this task span {spec.min_frames}: "
                    "take a longer video"
                )
            return choose(count)

        found = list(reader.read_clips(files.absolute(path), long_enough))
        found = [clip for clip in found if clip.attempt == found[-1].attempt]
        return np.stack([clip.frames for clip in found])

    try:
        return one_video.make_batch(
            read, spec, functools.partial(task.plan, train=False)
        )
    except VideoError as error:
        raise UserError(f"{path}: {error}") from error
