r"""CoCLR, the second stage: `ctp_jax/tasks/coclr.py`. A cycle, on data with stored flow:

    python -m ctp_jax.prepare flow --from ucf101
    python -m ctp_jax.main --config=configs/infonce.py:data=ucf101_flow --workdir=RGB
    python -m ctp_jax.main --config=configs/infonce.py:data=ucf101_flow,stream=flow \
        --workdir=FLOW
    python -m ctp_jax.main --config=configs/coclr.py:data=ucf101_flow --workdir=RGB2 \
        --config.init_from=RGB --config.coclr.sampler=FLOW
    python -m ctp_jax.main --config=configs/coclr.py:data=ucf101_flow,stream=flow \
        --workdir=FLOW2 --config.init_from=FLOW --config.coclr.sampler=RGB2

The paper has two such cycles, and no row in Table 4 is like for like: see docs/methods.md.
Kinetics-400 has 50 epochs, a longer queue, and no sources with several videos.
"""

from ml_collections import ConfigDict

from configs import common, infonce


def get_config(arg=None):
    config = infonce.get_config(arg)
    kinetics = common.source_of(config.data.name) == "kinetics400"
    config.task = "coclr"
    config.init_head = True
    config.coclr = ConfigDict()
    # A run of infonce, or of coclr, on the other stream; or "random".
    config.coclr.sampler = ""
    config.coclr.nearest = 5  # keys that are positives, by the sampler
    config.coclr.leave_own = 0.9  # share of the steps that leave the own key out
    # What is cut off a video's name to get that of its source: in UCF-101, the number of
    # the clip. Empty: every video is a source of its own.
    ucf = config.data.name.startswith("ucf101")
    config.coclr.source_of = r"_c\d+(\.\w+)?$" if ucf else ""
    config.epochs = 50.0 if kinetics else 100.0
    config.optimizer.milestones = (40,) if kinetics else (80,)
    return config
