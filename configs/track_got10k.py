r"""Tracking on real boxes (Fig. 3): finetunes network and head on GOT-10k.

A curve of the figure is one start, its points are what stays frozen:

    for parts in "" stem stem+1 stem+2 stem+3 stem+4; do
      python -m ctp_jax.main --config=configs/track_got10k.py:freeze=$parts START \
          --workdir=runs/track_START$parts
    done

with START
    random                    nothing
    ImageNet, inflated        --config.init_from=resnet18 --config.model.epsilon=1e-5, after
                              python -m ctp_jax.convert resnet18.pth resnet18
    pretrained                --config.init_from=runs/k400_r3d
    pretrained with its head  --config.init_from=runs/k400_r3d --config.init_head

`window_iou` is the paper's mIoU, `ao` GOT-10k's (docs/tracking.md). The paper's values are in
a figure only, and so is all of its schedule: what is here is ours. `small,data=mine` takes
the network and the clips of `configs/small.py`, and boxes of your own, with the splits
`train` and `test` unless `train=` and `test=` say otherwise.
"""

from configs import common, small


def get_config(arg=None):
    arg = common.parse_arg(
        arg,
        data="got10k",
        train="train",
        test="",
        freeze="",
        small=False,
    )
    test = arg.test or ("val" if arg.data.startswith("got10k") else "test")
    config = common.pretrain(
        arg.data, split=arg.train, eval_split=test, epochs=30, milestones=(15, 25)
    )
    config.truth.preset, config.truth.real = 0, 1
    config.game.num_trajectories = 1  # objects to follow in a clip
    config.clip.strides, config.clip.jitter = (1,), False
    # Squares, as in evaluation, where the whole frame becomes one: no object is outside.
    config.clip.scales = ((112, 112), (128, 128), (144, 144))
    config.freeze = arg.freeze
    config.evaluators = common.evaluators("sequences")
    config.evaluators.sequences.kcf = True  # a baseline, computed once in a run
    if arg.small:
        small.shrink(config)
        small.tracking(config)
        small.schedule(config)
        config.clip.scales = ((56, 56), (64, 64), (72, 72))
    return common.finish(config, arg)
