"""Real boxes through the whole pipeline: they stay on what they enclose."""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from ctp_jax.data.batch import ClipSpec
from ctp_jax.prepare import video
from ctp_jax.prepare.builders import base as builders
from ctp_jax.tasks import base, render

SIZE = 32


def encode_square(index):
    """A white rectangle that moves over black."""
    count, height, width = 12, 40 + index, 60
    frames = np.zeros((count, height, width, 3), np.uint8)
    boxes = np.zeros((count, 4), np.float32)
    for i in range(count):
        x, y = 12 + i + index, 10 + i // 2
        frames[i, y : y + 8, x : x + 14] = 255
        boxes[i] = x, y, x + 14, y + 8
    jpegs = [video.encode_jpeg(frame, 95) for frame in frames]
    return video.EncodedVideo(jpegs, 10.0, {"boxes": boxes})


class Squares(builders.VideoBuilder):
    """Five videos with boxes."""

    @classmethod
    def make_source(cls, arguments, options):
        items = [
            builders.Item(f"v{i}", -1, functools.partial(encode_square, i))
            for i in range(5)
        ]
        names = [item.id for item in items]
        return builders.Source(items, {"train": names}, annotations={"boxes": (4,)})


class TwoClips(base.Task):
    """Asks for two clips of every video and plans a label for each."""

    def clip_spec(self, train):
        return ClipSpec(
            num_clips=2,
            num_frames=4,
            size=SIZE,
            strides=(1, 2),
            jitter=True,
            scales=(36, 48),
            flip=0.5,
        )

    def plan(self, rng, batch, train):
        return {"label": rng.split(2).integer((), 4)}


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    options = builders.Options(progress=False, workers=1)
    Squares(data_dir=data_dir, options=options).download_and_prepare()
    config = common.pretrain(
        "squares", split="train", eval_split="", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers = str(data_dir), 1
    config.batch_size = 4
    opened = base.open_pipeline(config, TwoClips(config), True)
    return list(itertools.islice(opened.train_batches(), 8))


def test_boxes_enclose_the_same_pixels_in_the_drawn_clip(batches):
    checked = flipped = 0
    for batch in batches:
        clips = np.asarray(
            render.crop_clips({k: jnp.asarray(batch[k]) for k in _NEEDED}, SIZE)
        )
        for clip, boxes, flip in zip(
            clips.reshape(-1, SIZE, SIZE, 3),
            batch["annotations"]["boxes"].reshape(-1, 4),
            np.repeat(batch["flip"].ravel(), 4),
            strict=True,
        ):
            if boxes.min() < 1 or boxes.max() > SIZE - 1:
                continue  # partly out of the window: its edge cannot be seen
            rows, columns = (
                np.flatnonzero(clip.mean(-1).max(axis) > 127) for axis in (1, 0)
            )
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(boxes, seen, atol=1.0)
            checked += 1
            flipped += flip
    assert checked > 30 and 0 < flipped < checked


_NEEDED = ("frames", "window", "extent", "flip")


def test_clips_of_a_video_differ_and_labels_come_from_the_plan(batches):
    for batch in batches:
        assert batch["frames"].shape[:3] == (4, 2, 4)
        assert batch["plan"]["label"].shape == (4, 2)
    times = np.concatenate([batch["times"] for batch in batches])
    assert (times[:, 0] != times[:, 1]).any(axis=-1).mean() > 0.5
    labels = np.concatenate([batch["plan"]["label"] for batch in batches])
    assert set(labels.ravel()) == {0, 1, 2, 3}
    assert (labels[:, 0] != labels[:, 1]).any()
