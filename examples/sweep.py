"""A sweep of your own: how fast the patches move.

    python -m ctp_jax.reproduce examples/sweep.py --seeds=0,1,2

A row is pretrained and transferred to every column; docs/experiments.md says more.
"""

COLUMNS = {
    "finetuned": {"config": "configs/finetune_small.py", "metric": "top1"},
    "k-NN": {"config": "configs/retrieval.py:small", "metric": "knn_top1"},
}
ROWS = {
    f"speed {speed:g}": {"config": "configs/small.py", "game.speed": speed}
    for speed in (1.0, 3.0, 6.0)
}
ROWS["from scratch"] = None
