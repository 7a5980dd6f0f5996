"""Steps of full size with each network: traced, of recognition the loss alone."""

import jax
import numpy as np
import pytest

from benchmarks import pretraining
from configs import finetune_ucf
from ctp_jax import models
from ctp_jax.tasks import ctp, recognition

COLOURS = ("brightness", "contrast", "hue", "saturation", "hue_saturation")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r2plus1d10", "r2d3d34", "tsm50", "s3dg"])
def test_a_step_of_full_size_can_be_traced(name):
    config = pretraining.make_config(name, 2)
    batch = pretraining.batch_spec(config)
    params, slopes = trace(ctp.Task(config), batch, jax.grad)
    assert jax.tree.structure(slopes) == jax.tree.structure(params)
    head = slopes["head"]["temporal"]["kernel"]
    encoder = models.create(config.model)
    stride = encoder.total_stride()[0]
    assert head.shape == (16 // stride, 1, 1, encoder.channels()[-1], 512)

    config = finetune_ucf.get_config(f"backbone={name}")
    task = recognition.Task(config)
    task.class_names = tuple(map(str, np.arange(101)))
    plan = {field: batch["plan"][field] for field in COLOURS}
    params, loss = trace(task, {**batch, "plan": plan})
    head = params["head"]["classifier"]["kernel"]
    assert head.shape == (encoder.channels()[-1], 101) and loss.shape == ()


def trace(task, batch, change=lambda loss: loss):
    """Shapes of the parameters, and of what the loss gives once it is changed."""
    rng = jax.random.key(0)
    variables = jax.eval_shape(lambda: task.init(rng, batch))

    def loss(params, state, batch):
        return task.loss(type(variables)(params, state), batch, 0, rng)[0]

    return variables.params, jax.eval_shape(change(loss), *variables, batch)
