"""Optimisers by name, and schedules of the learning rate.

The default is the SGD of the paper's authors: PyTorch's update rule, step for step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from ctp_jax import modules, ranges
from ctp_jax.train.epochs import Epochs


def make_schedule(
    config: ConfigDict, epochs: Epochs, total_steps: int
) -> optax.Schedule:
    """The learning rate as a function of the step, counted from 0.

    Args:
        config: `config.optimizer`. Milestones are in epochs, the warm-up is in steps.
            During warm-up the scheduled rate is multiplied by a factor that rises
            linearly from `warmup_factor` at step 0 to 1 at `warmup_steps`.
        epochs: turns milestones into steps.
        total_steps: where a cosine ends.

    Returns:
        A function from an integer step to a float32 rate; traceable.
    """
    peak = config.learning_rate
    if config.base_batch_size:
        peak = peak * epochs.batch_size / config.base_batch_size
    # A rate that falls after the end never falls, however far after.
    falls = [
        min(epochs.first_step(milestone), total_steps)
        for milestone in config.milestones
    ]

    def schedule(step):
        step = jnp.asarray(step)
        rate = jnp.asarray(peak, jnp.result_type(float))
        if config.schedule == "step":
            for fall in falls:
                rate = rate * jnp.where(step >= fall, config.decay, 1.0)
        elif config.schedule == "cosine":
            rate = rate * 0.5 * (1 + jnp.cos(jnp.pi * step / total_steps))
        if config.warmup_steps:
            start = config.warmup_factor
            warm = start + (1 - start) * step / config.warmup_steps
            rate = rate * jnp.minimum(warm, 1.0)
        return rate

    return schedule


def make_optimizer(
    config: ConfigDict,
    schedule: optax.Schedule,
    frozen: Callable[[Any], Any | None] = lambda params: None,
) -> optax.GradientTransformation:
    """The optimiser that `config.name` names, one of those in `make`.

    A name with a dot is a module outside this package. Its function
    `make(config, schedule)` gets the first two arguments of this one and returns an
    `optax.GradientTransformation`, which does its own clipping and weight decay.

    Args:
        config: `config.optimizer`.
        schedule: of the learning rate.
        frozen: see `Task.frozen`; parameters that it marks stay bit for bit the same.

    Raises:
        UserError: there is no such module, or it has no `make`.
    """
    ours = {name: __name__ for name in ranges.OPTIMIZERS}
    field, name = "config.optimizer.name", str(config.name)
    chain = modules.load(field, "optimiser", name, ours, "make").make(config, schedule)

    def update(gradients, state, params):
        updates, state = chain.update(gradients, state, params)
        mask = frozen(params)
        if mask is None:
            return updates, state
        # Their gradients are 0, but weight decay would still shrink them.
        updates = jax.tree.map(
            lambda change, keep: jnp.zeros_like(change) if keep else change,
            updates,
            mask,
        )
        return updates, state

    return optax.GradientTransformation(chain.init, update)


def make(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clips the norm of the gradient, then one of these, each as its steps in order.

    sgd: as PyTorch has it, the decay coupled: it goes through the momentum.
    adam: as PyTorch has it, the decay coupled: it goes through both moments.
    adamw: decoupled decay (Loshchilov and Hutter 2019, arXiv:1711.05101), scaled by
        the learning rate, as PyTorch has it.
    lars: a rate for each array (You et al. 2017, arXiv:1708.03888): the step is
        scaled by trust_coefficient * |w| / |g + weight_decay * w|, as in optax, where
        the paper has the sum of two norms below; momentum after the learning rate.
    """
    mask = is_weight if config.exclude_norms_and_biases else None
    decay = optax.add_decayed_weights(config.weight_decay, mask)
    momentum = optax.trace(config.momentum, config.nesterov)
    moments = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    trust = optax.scale_by_trust_ratio(trust_coefficient=config.trust_coefficient)
    rate = optax.scale_by_learning_rate(schedule)
    steps = {
        "sgd": (decay, momentum, rate),
        "adam": (decay, moments, rate),
        "adamw": (moments, decay, rate),
        "lars": (decay, optax.masked(trust, mask or True), rate, momentum),
    }
    clip = (
        optax.clip_by_global_norm(config.clip_norm)
        if config.clip_norm
        else optax.identity()
    )
    return optax.chain(clip, *steps[config.name])


def is_weight(params: Any) -> Any:
    """False for scales and biases, of norms and of other layers; True for the rest.

    Returns:
        bools in the tree of `params`, by the names that Flax gives: the last part of
        a path is 'scale' or 'bias'.
    """

    def judge(path, _):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return name not in ("scale", "bias")

    return jax.tree_util.tree_map_with_path(judge, params)
