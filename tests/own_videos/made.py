"""A tiny finetuned network, and videos of two classes, for what reads one's own videos."""

import jax
import pytest

from configs import finetune_small
from ctp_jax import config as config_lib
from ctp_jax.tasks import base
from ctp_jax.train.checkpoints import export
from tests.prepare import make_videos

CLASSES = ("falling", "rising")


def make_config(data_dir=""):
    config = finetune_small.get_config()
    config.model.name, config.model.width = "tests.tiny_network", 0.5  # 8 channels
    config.data.name, config.data.data_dir = "mine", str(data_dir)
    config.data.eval_split = "all"
    config.head.init_std = 3.0  # probabilities that are not all alike
    return config


def make_run(place, converted=False):
    """Writes an exported encoder with its head; (config, task, variables).

    As `ctp_jax.convert` would, without config and names of classes, if `converted`.
    """
    config = make_config()
    task = base.load(config)
    task.class_names = CLASSES
    variables = jax.jit(task.init)(jax.random.key(0), {})
    provenance = {"config": config_lib.as_dict(config), "class_names": list(CLASSES)}
    write_encoder(place, task, variables, {} if converted else provenance)
    return config, task, variables


def write_encoder(place, task, variables, provenance, head=True):
    """Exports the encoder of a task, with its head or without."""
    params, stats, architecture = task.encoder(variables)
    export.write_encoder(
        place,
        export.Encoder(
            params=params,
            batch_stats=stats,
            architecture=architecture,
            head=task.head(variables) if head else None,
            head_task=task.config.task,
            provenance=provenance,
            path="",
        ),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its folder; (config, task, variables)."""
    place = tmp_path_factory.mktemp("run") / "encoder"
    return place, make_run(place)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("videos"))


def make_files(folder):
    """Two videos of each class, of three sizes and lengths."""
    sizes = ((80, 100, 25), (160, 150, 40), (64, 96, 12), (80, 100, 31))
    paths = []
    for number, (height, width, count) in enumerate(sizes):
        path = folder / CLASSES[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Colours that move, and differ from video to video: what is seen of them rises or
        # falls.
        picture = make_videos.picture(height + count, width, 50 * number)
        frames = [picture[i : i + height] for i in range(count)]
        frames = frames[::-1] if number % 2 else frames
        make_videos.write_video(path, frames)
        paths.append(path)
    return paths
