"""The built-in data set: generated, labelled by motion. See `ctp_jax.prepare.sprites`."""

import argparse
import functools

from ctp_jax.errors import UserError
from ctp_jax.prepare import sprites
from ctp_jax.prepare.builders import base


class MovingShapes(base.VideoBuilder, skip_registration=True):
    """Textured sprites over panning textures; the class is how the sprites move."""

    DESCRIPTION = "Textured sprites over panning textures, labelled by their motion."

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--train_videos", type=int, default=600)
        parser.add_argument("--test_videos", type=int, default=150)
        parser.add_argument("--seed", type=int, default=0, help="other videos")

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        train, test = arguments.train_videos, arguments.test_videos
        if train < 1 or test < 1 or arguments.seed < 0:
            raise UserError(
                f"--train_videos={train} --test_videos={test} --seed={arguments.seed}: "
                "needs at least one video of each and a seed of 0 or more"
            )
        items = [
            base.Item(
                id=f"{sprites.CLASSES[i % len(sprites.CLASSES)]}_{i:06d}",
                label=i % len(sprites.CLASSES),
                encode=functools.partial(
                    sprites.encode_shapes, arguments.seed, i, options.quality
                ),
            )
            for i in range(train + test)
        ]
        names = [item.id for item in items]
        splits = {"train": names[:train], "test": names[train:]}
        return base.Source(items, splits, sprites.CLASSES)


Builder = MovingShapes
