"""Finetunes an encoder with a Flax head of your own, on videos in class folders.

    python examples/own_head.py --init_from=runs/mine --videos=videos

No data set is prepared and no TensorFlow is needed; all clips are held in memory, which
suits some hundreds of videos. For more, prepare them and use `configs/finetune_ucf.py`.
"""

import argparse
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import ctp_jax
from ctp_jax import cli
from ctp_jax.errors import UserError
from ctp_jax.own_videos.command_line import find_videos

CLIPS = 4  # of a video: one of them a step in training, all in evaluation


class AttentionHead(nn.Module):
    """Classes from the positions of the feature map that a learnt query attends to."""

    classes: int

    @nn.compact
    def __call__(self, features):
        """(b, t, h, w, c) -> logits (b, classes)."""
        x = features.reshape(len(features), -1, features.shape[-1])
        x = nn.LayerNorm()(x.astype(jnp.float32))
        weights = nn.softmax(nn.Dense(1)(x), axis=1)
        return nn.Dense(self.classes)((weights * x).sum(axis=1))


def read(folder, spec):
    """Clips (v, CLIPS, t, s, s, 3), labels (v,) and the names of the classes."""
    paths = find_videos([folder])
    names = sorted({path.parent.name for path in paths})
    clips, labels = [], []
    for path in paths:
        try:
            clips.append(np.asarray(ctp_jax.read_clips(path, spec)))
            labels.append(names.index(path.parent.name))
        except UserError as error:
            print(f"bad: {error}")
    return np.stack(clips), np.array(labels), names


def train(init_from, folder, steps=200, batch_size=16, rate=1e-3, seed=0):
    """Trains on three quarters of the videos; the accuracy on the others."""
    encoder = ctp_jax.load_encoder(init_from)
    spec = dataclasses.replace(encoder.spec, num_clips=CLIPS)
    clips, labels, names = read(folder, spec)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(clips))
    held_out, rest = order[: len(order) // 4], order[len(order) // 4 :]
    head = AttentionHead(len(names))
    features = encoder.stages(clips[:1, 0])[-1]
    params = {
        "encoder": encoder.variables["params"],
        "head": head.init(jax.random.key(seed), features),
    }
    stats = encoder.variables["batch_stats"]
    optimizer = optax.adamw(optax.cosine_decay_schedule(rate, steps))

    def loss(params, stats, clips, labels):
        # train=True: BatchNorm takes the statistics of the batch.
        variables = {"params": params["encoder"], "batch_stats": stats}
        features, changed = encoder.module.apply(
            variables, clips, train=True, mutable=["batch_stats"]
        )
        logits = head.apply(params["head"], features)
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each.mean(), changed["batch_stats"]

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, stats, state, clips, labels):
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, stats), grads = gradient(params, stats, clips, labels)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state, value

    @jax.jit
    def predict(params, stats, clips):
        variables = {"params": params["encoder"], "batch_stats": stats}
        features = encoder.module.apply(variables, clips, train=False)
        return head.apply(params["head"], features)

    # Copies, because a step donates them.
    params, stats = jax.tree.map(jnp.copy, (params, stats))
    state = optimizer.init(params)
    for number in range(1, steps + 1):
        rows = rng.choice(rest, batch_size)
        batch = clips[rows, rng.integers(0, CLIPS, batch_size)]
        params, stats, state, value = step(params, stats, state, batch, labels[rows])
        if number % 20 == 0 or number == steps:
            print(f"step {number}/{steps}  loss {float(value):.3f}", flush=True)
    logits = [predict(params, stats, clips[row]).mean(axis=0) for row in held_out]
    accuracy = np.mean(np.argmax(logits, axis=1) == labels[held_out])
    print(f"{accuracy:.1%} of {len(held_out)} held-out videos, {len(names)} classes")
    return float(accuracy)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init_from", required=True, help="run or exported encoder")
    parser.add_argument("--videos", required=True, help="folder of class folders")
    parser.add_argument("--steps", type=int, default=200)
    found = parser.parse_args(arguments)
    train(found.init_from, str(pathlib.Path(found.videos).expanduser()), found.steps)


if __name__ == "__main__":
    cli.run(main)
