r"""CEP, `ctp_jax/tasks/cep.py`: Table 4 has it with SlowFast, which is not here.

    python -m ctp_jax.main --config=configs/cep.py:data=kinetics400 --workdir=DIR
    python -m ctp_jax.main --config=configs/cep.py:data=mine,small --workdir=DIR

Arguments: see `configs/common.py:parse_pretext`. Clips are 112 pixels wide, like those of
the other tasks; CEP's own, 224.
"""

from ml_collections import ConfigDict

from configs import common, small


def get_config(arg=None):
    arg = common.parse_pretext(arg)
    config = common.pretext("cep", arg)
    del config.head, config.colour
    # One run of three times `num_frames`.
    config.clip.strides, config.clip.jitter = (1,), False
    config.jitter = common.jitter(0.4, 0.4, 0.4, 0.4, grey=0.2)
    config.contrast = common.contrast(16384, momentum=0.9, temperature=1.0)
    config.contrast.dim = 2048
    config.cep = ConfigDict()
    config.cep.prediction = 1.0  # weight of the distance of predictions
    config.cep.cycle = 0.1  # and of those that come back again
    config.cep.layers = 4  # of each predictor, with batch normalisation between them
    config.cep.hidden = 2048  # their width
    if common.is_kinetics(arg):
        config.epochs = 50.0
    config.optimizer.base_batch_size = 64
    config.optimizer.schedule = "cosine"
    config.optimizer.clip_norm = 0.0
    config.evaluators = common.evaluators("pairs")
    config = small.finish_pretext(config, arg)
    if arg.small:
        small.contrast(config)
        config.contrast.dim = config.cep.hidden = 128
        config.optimizer.base_batch_size = 0
    return config
