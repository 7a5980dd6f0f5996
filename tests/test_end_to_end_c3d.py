"""C3D: pretrained, exported, finetuned with frozen parts, looked at by retrieval.

A file of its own, so that another worker takes it than that of test_end_to_end.py.
"""

import jax
import numpy as np

from configs import finetune_small, ucf_r3d
from ctp_jax.train import loop
from ctp_jax.train.checkpoints import export

SMALL = {
    "data.name": "moving_shapes",
    "data.split": "train",
    "data.eval_split": "test",
    "model.name": "c3d",
    "model.width": 0.25,
    "clip.num_frames": 8,
    "probe.scales": ((86, 64),),
    "probe.num_clips": 2,
    "steps": 2,
}


def test_from_pretraining_to_retrieval(moving_shapes, tmp_path, capsys):
    small = SMALL | {"data.data_dir": moving_shapes(12, 6)}
    config = ucf_r3d.get_config("runlocal")
    config.update_from_flattened_dict(small)
    config.eval_every, config.clip.size = 0.0, 56
    config.clip.scales = (56, 64, 72)
    results = loop.train(config, tmp_path / "pretrained")
    assert 0 < results["iou"] < 1
    before = export.load_encoder(tmp_path / "pretrained")
    assert before.architecture["name"] == "c3d"

    config = finetune_small.get_config("runlocal,evaluate=retrieval")
    config.update_from_flattened_dict(small)
    config.init_from, config.freeze = str(tmp_path / "pretrained"), "stem+2"
    results = loop.train(config, tmp_path / "finetuned")
    assert "parameters (stem+2 frozen), 12 videos" in capsys.readouterr().out
    assert 0 <= results["top1"] <= 1 and 0 <= results["retrieval_top1"] <= 1
    after = export.load_encoder(tmp_path / "finetuned")
    for kind in ("params", "batch_stats"):
        old, new = getattr(before, kind), getattr(after, kind)
        for name in old:
            same = jax.tree.map(np.array_equal, old[name], new[name])
            frozen = name.startswith(("stem", "stage1", "stage2"))
            assert all(jax.tree.leaves(same)) == frozen, name
