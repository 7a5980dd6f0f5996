"""Passes the metrics of a run on to trackio: `pip install trackio`.

python -m ctp_jax.main ... --config.metrics_to=examples.log_to_trackio
"""

import contextlib

import trackio


@contextlib.contextmanager
def pass_on(config, workdir):
    trackio.init(project="ctp_jax", name=workdir.name, config=config.to_dict())
    yield lambda step, numbers: trackio.log(numbers, step=step)
    trackio.finish()
