"""Two training steps in float64: ours, and those of a PyTorch module that a test writes.

A test writes its method once more as a module: children are named as our parameters
(`encoder`, `head`, ...), `forward` gives the loss, and the optimiser is PyTorch's. Both
start from the same numbers and see the same drawn clips, so that what is left of a
difference is rounding. In float32 that would be a percent after two steps: relu switches
at rounding errors, and batches of a few positions magnify them.
"""

from copy import deepcopy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from ctp_jax.tasks.base import Variables
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train import optimizer, state, step
from tests import float64
from tests.tasks import made_clips as made

CHANNELS = 4
RATE = 0.01
TOLERANCE = 1e-6
KEPT = {"params": "encoder", "batch_stats": "encoder"}  # of a key network, and where
KEPT |= {"head": "head", "head_stats": "head"}


class Encoder(nn.Module):
    """`tests.tiny_network` once more, at the width of `made_clips.shrink`."""

    def __init__(self, spatial=(1, 2, 2, 2), temporal=(1, 2, 2, 2), channels=CHANNELS):
        super().__init__()
        strides = [(1, 2, 2), *((t, s, s) for t, s in zip(temporal, spatial))]
        self.parts = [("stem", "stem_norm")]
        self.parts += [(f"stage{i}_conv", f"stage{i}_norm") for i in range(1, 5)]
        for part, (conv, norm) in enumerate(self.parts):
            before = channels if part else 3
            layer = nn.Conv3d(before, channels, 3, strides[part], 1, bias=False)
            self.add_module(conv, layer)
            self.add_module(norm, nn.BatchNorm3d(channels, eps=1e-3))

    def forward(self, x):
        """Features (b, c, t', h', w') of normalised clips (b, 3, t, s, s)."""
        for conv, norm in self.parts:
            x = torch.relu(getattr(self, norm)(getattr(self, conv)(x)))
        return x


class Dense(nn.Module):
    """Linear layers, named and sized as ours: the head of a method that has no other."""

    def __init__(self, params):
        super().__init__()
        for name, leaf in params.items():
            self.add_module(name, nn.Linear(*leaf["kernel"].shape))


class Momentum(nn.Module):
    """Of a method with a key network and a queue: all but `forward`.

    The key network moves before it computes keys, as in the releases.
    """

    def __init__(self, task, head):
        super().__init__()
        self.keep = task.config.contrast.momentum
        self.encoder, self.head = Encoder(), head

    def embed(self, clips):
        pooled = self.encoder(clips).mean(dim=(2, 3, 4))
        return normalize(self.head.embedding(torch.relu(self.head.hidden(pooled))))

    def begin(self, weights):
        self.first = weights.state["networks"]["key"]
        self.keys = [self.load(self.first)]  # in a list: not among the parameters
        self.queue = torch.tensor(weights.state["queue"]["key"])
        self.pointer = 0

    def load(self, network):
        """A module like this one, with the numbers of a network of ours."""
        found = deepcopy(self).requires_grad_(False)
        for name, part in KEPT.items():
            copy(network[name], getattr(found, part))
        return found

    def move(self, keys):
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, mine in keys.named_parameters():
                mine.mul_(self.keep).add_(own[name], alpha=1 - self.keep)

    def embed_keys(self, clips):
        self.move(self.keys[0])
        return self.keys[0].embed(clips)

    def enter(self, key):
        self.queue = self.queue.clone()
        for row in key:
            self.queue[self.pointer] = row
            self.pointer = (self.pointer + 1) % len(self.queue)

    def numbers(self, keys):
        """Of a key network, in the tree of ours."""
        return {
            name: read(self.first[name], getattr(keys, part))
            for name, part in KEPT.items()
        }

    def state(self):
        """Ours after a step: there, the key network has moved once more."""
        moved = deepcopy(self.keys[0])
        self.move(moved)
        return {
            "networks": {"key": self.numbers(moved)},
            "queue": {"key": self.queue.numpy()},
            "pointer": np.int32(self.pointer),
        }


def make_weights(task, batch) -> Variables:
    """Float64 variables away from their initial values, as NumPy arrays.

    What a task keeps besides statistics (a sampler, a queue) is as `init` has it; but a
    key network starts as the query network here, too.
    """
    with jax.enable_x64(True):
        drawn = made.make_weights(task, batch)
        kept = {}
        if set(drawn.state) != {"batch_stats"}:
            init = jax.jit(lambda rng, batch: task.init(rng, batch).state)
            kept = dict(init(jax.random.key(2), batch))
        stats = kept["batch_stats"] = drawn.state.get("batch_stats", {})
        if "networks" in kept:
            key = {"params": drawn.params["encoder"], "head": drawn.params["head"]}
            key |= {"batch_stats": stats["encoder"], "head_stats": stats["head"]}
            kept["networks"] = {"key": key}
        return jax.tree.map(_wide, Variables(drawn.params, kept))


def copy(tree, module: nn.Module) -> None:
    """Copies our parameters, or statistics of batches, into a module of the same names."""
    with torch.no_grad():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            _leaf(module, path).copy_(torch.tensor(np.asarray(leaf)))


def read(tree, module: nn.Module) -> Any:
    """The module's numbers, float64, in the tree and the layout of ours."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _leaf(module, path).detach().numpy().copy(), tree
    )


def check(
    task, weights: Variables, network: nn.Module, batches, *, make_rule=None, given=()
) -> None:
    """Asserts that losses, parameters and state are the same after every step.

    Args:
        task: ours; its encoder and methods are replaced.
        weights: of `make_weights`.
        network: in PyTorch. `network(clips, batch)` gives the loss, where clips are
            (b, c, 3, t, s, s), normalised, and the batch has NumPy arrays, those of
            `given`, too. If it has `begin(weights)`, that copies what the parameters
            and `batch_stats` are not. If it has `after_step()`, that follows the
            optimiser. If it has `state()`, its entries are compared with those of our
            state, by name.
        batches: one a step.
        make_rule: an optimiser of PyTorch, from the parameters; by default the SGD or the
            Adam of the config. The rate is `RATE`.
        given: methods of the task, besides `draw`, whose results are the same for both:
            arrays that depend on the batch alone, such as frames to reconstruct.
    """
    rule = task.config.optimizer
    rule.clip_norm, rule.weight_decay = 0.0, 1e-2
    network.double().train()
    copy(weights.params, network)
    copy(weights.state.get("batch_stats", {}), network)
    if hasattr(network, "begin"):
        network.begin(weights)
    own = [each for each in network.parameters() if each.requires_grad]
    decay = {"lr": RATE, "weight_decay": rule.weight_decay}
    if make_rule:
        theirs = make_rule(own)
    elif rule.name == "adam":
        theirs = torch.optim.Adam(own, eps=rule.epsilon, **decay)
    else:
        theirs = torch.optim.SGD(own, momentum=rule.momentum, **decay)
    drawing = {name: jax.jit(getattr(task, name)) for name in ("draw", *given)}
    batches = [_draw(drawing, batch) for batch in batches]
    for name in drawing:
        setattr(task, name, lambda batch, name=name: batch[name])
    before = weights
    with jax.enable_x64(True), float64.quick_convolutions():
        task._encoder = task._encoder.clone(dtype=jnp.float64)
        run, now = _start(task, weights)
        for batch in batches:
            theirs.zero_grad()
            loss = network(_normalized(batch["draw"]), batch)
            loss.backward()
            theirs.step()
            if hasattr(network, "after_step"):
                network.after_step()
            now, metrics = run(now, batch)
            error = abs(float(metrics["loss"]) / loss.item() - 1)
            assert error < TOLERANCE, f"loss {metrics['loss']}, PyTorch: {loss.item()}"
            wanted = {
                "params": read(weights.params, network),
                "batch_stats": read(weights.state.get("batch_stats", {}), network),
            } | (network.state() if hasattr(network, "state") else {})
            for name, tree in wanted.items():
                found = now.params if name == "params" else now.model_state[name]
                first = before.params if name == "params" else before.state[name]
                _compare(name, tree, found, first)


def _start(task, weights):
    """Our compiled step, and the state before it."""
    mesh = mesh_lib.one_device()
    schedule = lambda count: RATE
    chain = optimizer.make_optimizer(task.config.optimizer, schedule)
    run = step.make_train_step(task, chain, schedule, 0, mesh)
    # Copies: the step donates them.
    own = jax.tree.map(jnp.array, weights)
    now = state.TrainState(jnp.int32(0), *own, chain.init(own.params))
    return run, jax.device_put(now, mesh_lib.replicated(mesh))


def _draw(drawing, batch):
    """The batch in NumPy, with the results of these methods, float64."""
    found = {name: method(batch) for name, method in drawing.items()}
    return jax.tree.map(np.asarray, dict(batch)) | jax.tree.map(_wide, found)


def _wide(leaf):
    leaf = np.asarray(leaf)
    return leaf.astype(np.float64) if np.issubdtype(leaf.dtype, np.floating) else leaf


def _normalized(clips):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.tensor(np.moveaxis((clips / 255 - mean) / std, -1, 2))


def _leaf(module, path):
    """The tensor of a module that a path of ours names, as a view in our layout."""
    *children, own = (part.key for part in path)
    for child in children:
        module = getattr(module, child)
    names = {"scale": "weight", "mean": "running_mean", "var": "running_var"}
    if own != "kernel":
        return getattr(module, names.get(own, own)).data
    kernel = module.weight.data
    # PyTorch has (out, in, *size), transposed convolutions (in, out, *size).
    channels = (0, 1) if getattr(module, "transposed", False) else (1, 0)
    return kernel.permute(*range(2, kernel.ndim), *channels)


def _compare(name, wanted, found, first):
    """Asserts that arrays have moved alike, relative to how far they have moved."""
    for path, want in jax.tree_util.tree_leaves_with_path(wanted):
        got, start = (_at(tree, path) for tree in (found, first))
        if not np.issubdtype(np.asarray(want).dtype, np.floating):
            np.testing.assert_array_equal(got, want, str(path))
            continue
        assert got.dtype == np.float64, f"{name} {path}: {got.dtype}"
        moved = np.linalg.norm(want - np.asarray(start))
        error = np.linalg.norm(np.asarray(got) - want)
        assert moved > 0, f"{name} {path} has not moved"
        assert error < TOLERANCE * moved, f"{name} {path}: {error} of {moved}"


def _at(tree, path):
    for part in path:
        tree = tree[part.key]
    return tree
