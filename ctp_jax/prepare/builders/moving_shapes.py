"""The built-in data set: generated, labelled by motion. See `ctp_jax.prepare.sprites`."""

import functools

from ctp_jax.flags import Flags
from ctp_jax.prepare import sprites
from ctp_jax.prepare.builders import base


class MovingShapes(base.VideoBuilder):
    """Textured sprites over panning textures; the class is how the sprites move."""

    DESCRIPTION = "Textured sprites over panning textures, labelled by their motion."
    UNUSED = ("short_side",)

    @classmethod
    def define_flags(cls, values: Flags) -> None:
        values.integer("train_videos", 600, "How many.", lower_bound=1)
        values.integer("test_videos", 150, "How many.", lower_bound=1)
        values.integer("seed", 0, "Another makes other videos.", lower_bound=0)

    @classmethod
    def make_source(cls, arguments, options) -> base.Source:
        train, test = arguments.train_videos, arguments.test_videos
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
        most = sprites.COUNTS[1]
        annotations = {"boxes": (most, 4), "visibility": (most,)}
        return base.Source(items, splits, sprites.CLASSES, annotations)


Builder = MovingShapes
