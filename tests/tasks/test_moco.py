"""MoCo, and the momentum encoder and queue that it shares: against PyTorch and NumPy."""

import copy
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import moco as moco_config
from ctp_jax.errors import UserError
from ctp_jax.models import heads
from ctp_jax.tasks import base
from tests.tasks import made_clips as made

QUEUE = 2 * made.VIDEOS


def make_task(**flat):
    config = made.shrink(moco_config.get_config("data=none"))
    config.colour.brightness = config.colour.contrast = 1.0  # always changed
    config.colour.hue_saturation = 1.0
    config.batch_size = made.VIDEOS
    config.contrast.queue, config.contrast.dim = QUEUE, 8
    # So large a share moves that a wrong order shows.
    config.contrast.momentum = 0.6
    config.update_from_flattened_dict(flat)
    return base.load(config)


def torch_network(task):
    """MoCo as the release orders it: the key network moves before it computes keys."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    from tests.tasks import two_steps

    options = task.config.contrast

    class Branch(torch.nn.Module):
        def __init__(self, params):
            super().__init__()
            self.encoder = two_steps.Encoder()
            self.head = two_steps.Dense(params["head"])

        def forward(self, clips):
            pooled = self.encoder(clips).mean(dim=(2, 3, 4))
            return normalize(self.head.embedding(torch.relu(self.head.hidden(pooled))))

    class Network(Branch):
        def begin(self, weights):
            # In a list: no part of the parameters.
            self.keys = [copy.deepcopy(Branch.forward.__get__(self).__self__)]
            self.queue = torch.tensor(weights.state["queue"]["key"])
            self.pointer = 0

        def forward(self, clips, batch):
            query = Branch.forward(self, clips[:, 0])
            with torch.no_grad():
                self.move(self.keys[0])
                key = Branch.forward(self.keys[0], clips[:, 1])
            own = (query * key).sum(1, keepdim=True)
            logits = torch.cat([own, query @ self.queue.T], 1) / options.temperature
            loss = cross_entropy(logits, torch.zeros(len(clips), dtype=torch.long))
            self.queue = self.queue.clone()
            self.queue[self.pointer : self.pointer + len(key)] = key
            self.pointer = (self.pointer + len(key)) % len(self.queue)
            return loss

        def move(self, keys):
            for mine, other in zip(keys.parameters(), self.parameters(), strict=True):
                mine.data = options.momentum * mine.data
                mine.data += (1 - options.momentum) * other.data

        def state(self):
            """As ours after a step, when the key network has moved once more."""
            moved = copy.deepcopy(self.keys[0])
            self.move(moved)
            network = task_state["networks"]["key"]
            found = {
                "params": two_steps.read(network["params"], moved.encoder),
                "batch_stats": two_steps.read(network["batch_stats"], moved.encoder),
                "head": two_steps.read(network["head"], moved.head),
            }
            return {
                "networks": {"key": found},
                "queue": {"key": self.queue.numpy()},
                "pointer": np.int32(self.pointer),
            }

    return Network, Branch
