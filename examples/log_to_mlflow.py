"""Passes the metrics of a run on to MLflow: `pip install mlflow`.

python -m ctp_jax.main ... --config.metrics_to=examples.log_to_mlflow
"""

import contextlib

import mlflow

from ctp_jax import config as config_lib


@contextlib.contextmanager
def pass_on(config, workdir):
    mlflow.set_experiment("ctp_jax")
    with mlflow.start_run(run_name=workdir.name):
        mlflow.log_params(config_lib.flatten(config))
        yield lambda step, numbers: mlflow.log_metrics(numbers, step=step)
