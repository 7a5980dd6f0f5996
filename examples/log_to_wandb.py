"""Passes the metrics of a run on to Weights & Biases: `pip install wandb`.

python -m ctp_jax.main ... --config.metrics_to=examples.log_to_wandb
"""

import contextlib

import wandb


@contextlib.contextmanager
def pass_on(config, workdir):
    settings = {"project": "ctp_jax", "id": workdir.name, "resume": "allow"}
    with wandb.init(config=config.to_dict(), **settings) as run:
        yield lambda step, numbers: run.log(numbers, step=step)
