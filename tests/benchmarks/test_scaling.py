"""What benchmarks/scaling.py counts, on a program whose collectives are known."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import pretraining, scaling
from configs import common, ucf_r3d
from ctp_jax.data import clips
from ctp_jax.prepare.builders import moving_shapes
from ctp_jax.tasks import base, ctp

# Eight devices share 16 rows of 4 numbers. Two kernels, a normalisation of 6 channels;
# a loop of five that needs a sum over all rows each time; all rows wanted everywhere.
PROGRAM = """
import json
import jax, jax.numpy as jnp
from flax import linen as nn
from benchmarks import scaling
from ctp_jax.models.layers import BatchNorm
from ctp_jax.train import mesh as mesh_lib

jax.config.update("jax_num_cpu_devices", 8)

class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(6, use_bias=False, name="first")(x)
        x = nn.relu(BatchNorm(name="bn")(x, True))
        return nn.Dense(3, use_bias=False, name="last")(x)

def program(variables, x):
    def loss(params):
        variables_ = {"params": params, "batch_stats": variables["batch_stats"]}
        out, _ = Network().apply(variables_, x, mutable=["batch_stats"])
        return jnp.square(out).mean()

    def again(total, _):
        return jnp.tanh((x * total).sum(0)), None

    total, _ = jax.lax.scan(again, jnp.ones(4), None, length=5)
    return jax.grad(loss)(variables["params"]), total, jnp.sort(x, axis=1)

mesh = mesh_lib.make_mesh()
everywhere = mesh_lib.replicated(mesh)
x = jax.ShapeDtypeStruct((16, 4), jnp.float32)
variables = jax.eval_shape(Network().init, jax.random.key(0), x)
lowered = jax.jit(
    program,
    in_shardings=(everywhere, mesh_lib.over_batch(mesh)),
    out_shardings=everywhere,
).lower(variables, x)
print(json.dumps([
    scaling.count_collectives(lowered.compile(scaling.NOT_COMBINED))[0],
    scaling.count_collectives(lowered.compile())[1],
]))
"""


@pytest.fixture(scope="module")
def counted():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_collectives_are_counted_by_what_they_are_for(counted):
    table = dict(counted[0])
    backward = table.pop("BatchNorm, backward (all-reduce)")
    assert table == {
        "gradients (all-reduce)": [2, 4 * (4 * 6 + 6 * 3)],
        "BatchNorm, forward (all-reduce)": [2, 2 * 4 * 6],  # mean and variance
        "metrics (all-reduce)": [5, 5 * 4 * 4],  # the loop
        "metrics (all-gather)": [1, 4 * 16 * 4],
    }
    # Of scale and bias; of mean and variance, too, unless XLA sees what they share.
    assert 2 <= backward[0] <= 4
    assert backward[1] == backward[0] * 4 * 6


def test_messages_are_what_is_left_when_arrays_travel_together(counted):
    table, messages = counted
    assert sum(messages) == sum(held for _, held in table.values())
    assert len(messages) < sum(arrays for arrays, _ in table.values())


def test_tuples_and_started_collectives_are_read():
    text = """
%body (p: f32[8]) -> f32[8] {
  %a = (bf16[3,5]{1,0:T(8)S(1)}, f32[]) all-reduce-start(%x), metadata={op_name="f/g"}
  %b = (f32[4]{0}, f32[32]{0}) all-gather-start(%z), dimensions={0}
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %w = f32[8] while(%i), body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %d = pred[2]{0} all-to-all(%q), metadata={op_name="transpose(f)/conv"}
  %e = f32[4] all-gather-done(%b)
}
"""
    found = [
        (each.kind, each.sizes, each.runs, each.origin)
        for each in scaling.read_collectives(text)
    ]
    assert sorted(found) == [
        ("all-gather", (128,), 7, "metrics"),
        ("all-reduce", (30, 4), 7, "metrics"),
        ("all-to-all", (2,), 1, "gradients"),
    ]


def test_the_batch_is_that_of_the_pipeline(tmp_path):
    arguments = moving_shapes.Builder.read_flags("--train_videos=3", "--test_videos=2")
    builder = moving_shapes.Builder(arguments=arguments, data_dir=tmp_path)
    builder.download_and_prepare()
    config = common.pretrain(
        "moving_shapes", split="train", eval_split="", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers, config.batch_size = str(tmp_path), 1, 2
    opened = base.open_pipeline(config, ctp.Task(config), True)
    batch = {**next(opened.train_batches()), "annotations": {}}
    spec = pretraining.batch_spec(config, batch["frames"].shape[3:5])
    assert jax.tree.structure(spec) == jax.tree.structure(batch)
    for wanted, real in zip(jax.tree.leaves(spec), jax.tree.leaves(batch), strict=True):
        assert (wanted.shape, wanted.dtype) == (real.shape, real.dtype)


def test_the_canvas_is_that_of_ucf101():
    config = ucf_r3d.get_config()
    spec = ctp.Task(config).clip_spec(True)
    canvas = clips.canvas_size(np.array([144]), np.array([192]), spec)
    assert canvas == pretraining.CANVAS
