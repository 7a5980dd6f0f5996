r"""InfoNCE and UberNCE, the first stage of CoCLR: `ctp_jax/tasks/infonce.py`.

    python -m ctp_jax.main --config=configs/infonce.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/infonce.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. With `--config.contrast.positives=label`,
positives are all keys of the query's class: UberNCE. The queue has 16,384 keys for
Kinetics-400 and 2,048 for other data. The release's network is S3D: `backbone=s3d`.
"""

from configs import common, small

AREAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ASPECTS = (0.75, 0.875, 1.0, 1.143, 1.333)


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("infonce", arg)
    del config.head, config.colour
    config.clip.num_frames, config.clip.size = 32, 128
    config.clip.strides, config.clip.jitter = (1,), False
    config.clip.scales = area_crops(config.clip.size)
    # Of strong clips; the release makes grey of one channel, drawn at random.
    config.jitter = common.jitter(0.4, 0.4, 0.4, 0.1, probability=0.8, grey=0.2)
    queue = 16384 if common.is_kinetics(arg) else 2048
    config.contrast = common.contrast(queue, momentum=0.999, temperature=0.07)
    config.contrast.positives = "own"  # or label
    config.contrast.same_clip = 0.5  # probability that query and key show one clip
    config.contrast.strong = 0.3  # of each of two clips; of one clip, one is strong
    config.contrast.blur = 0.5  # of strong clips
    config.optimizer.name = "adam"
    config.optimizer.learning_rate, config.optimizer.weight_decay = 1e-3, 1e-5
    config.optimizer.clip_norm = 0.0
    config.epochs, config.optimizer.milestones = 300.0, (250, 280)
    config.evaluators = common.evaluators("pairs")
    config = small.finish_pretext(config, arg)
    if arg.small:
        small.contrast(config)
        config.clip.scales = area_crops(config.clip.size)
    return config


def area_crops(size):
    """Sizes to scale a 4:3 frame to, so that a crop of `size` shows 20 to 100 % of it.

    With aspects from 3/4 to 4/3, at any place, as torchvision's RandomResizedCrop; where
    a window does not fit, the whole frame, squeezed, as in the release.
    """
    scales = []
    for area in AREAS:
        for aspect in ASPECTS:
            width, height = (12 * area * aspect) ** 0.5, (12 * area / aspect) ** 0.5
            fits = width <= 4 and height <= 3
            scales.append(
                (round(size * 4 / width), round(size * 3 / height))
                if fits
                else (size, size)
            )
    return tuple(scales)
