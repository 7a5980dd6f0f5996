"""Videos of several lengths with a moving square and its box, and a tiny network for them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common, small
from ctp_jax.prepare import video
from ctp_jax.prepare.builders import base as builders

LENGTHS = (10, 4, 7, 1, 9, 13)
HEIGHT, WIDTH, FRAMES, SIZE = 48, 64, 4, 32


def make_video(number):
    """Frames uint8 (f, h, w, 3), boxes (f, 1, 4) and visibility (f, 1)."""
    rng = np.random.default_rng(number)
    count = LENGTHS[number]
    ground = rng.integers(0, 120, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    frames = np.tile(ground.repeat(8, 0).repeat(8, 1), (count, 1, 1, 1))
    boxes = np.zeros((count, 1, 4), np.float32)
    for i in range(count):
        x, y = 6 + 2 * i + number, 8 + i
        frames[i, y : y + 12, x : x + 16] = (250, 200, 30 * number)
        boxes[i] = x, y, x + 16, y + 12
    visibility = np.ones((count, 1), np.float32)
    visibility[5:6] = 0
    return frames, boxes, visibility


def encode(number):
    frames, boxes, visibility = make_video(number)
    jpegs = [video.encode_jpeg(frame, 95) for frame in frames]
    return video.EncodedVideo(jpegs, 10.0, {"boxes": boxes, "visibility": visibility})


class Sequences(builders.VideoBuilder):
    """A data set of them."""

    @classmethod
    def make_source(cls, arguments, options):
        items = [
            builders.Item(f"v{number}", -1, functools.partial(encode, number))
            for number in range(len(LENGTHS))
        ]
        names = [item.id for item in items]
        shapes = {"boxes": (1, 4), "visibility": (1,)}
        return builders.Source(items, {"val": names}, annotations=shapes)


def prepare(data_dir):
    options = builders.Options(progress=False, workers=1)
    Sequences(data_dir=data_dir, options=options).download_and_prepare()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare(folder)
    return folder


def make_config(data_dir="", **flat):
    config = small.get_config()
    config.data.name, config.data.data_dir = "sequences", str(data_dir)
    config.data.split = config.data.eval_split = "val"
    config.data.workers = 1
    config.clip.size, config.clip.num_frames, config.clip.scales = SIZE, FRAMES, (32,)
    config.model.name, config.batch_size = "tests.tiny_network", 2
    config.head.channels, config.head.roi_size = 8, 3
    config.evaluators = common.evaluators("sequences")
    config.update_from_flattened_dict(flat)
    return config


def make_variables(task):
    """Weights that move boxes by some pixels."""
    variables = jax.jit(task.init)(jax.random.key(3), {})
    params = variables.params
    head = {**params["head"]}
    bias = np.random.default_rng(0).normal(0, 0.3, head["dense2"]["bias"].shape)
    head["dense2"] = {**head["dense2"], "bias": jnp.asarray(bias, jnp.float32)}
    return variables._replace(params={**params, "head": head})
