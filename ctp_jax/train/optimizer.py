"""SGD as the paper's authors ran it (torch's, step for step) and its schedules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from ctp_jax.train.epochs import Epochs


def make_schedule(
    config: ConfigDict, epochs: Epochs, total_steps: int
) -> optax.Schedule:
    """The learning rate as a function of the step, counted from 0.

    Args:
        config: `config.optimizer`. Milestones are epochs, the warm-up is in steps.
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
    falls = [epochs.first_step(milestone) for milestone in config.milestones]

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
    """Clip, add the decay, add the momentum, scale.

    The order is torch's: the norm is clipped before the decay is added, and the
    decay, on every parameter, goes through the momentum (coupled, not AdamW's).

    Args:
        config: `config.optimizer`.
        schedule: of the learning rate.
        frozen: see `Task.frozen`; what it marks stays bit for bit as it is.
    """

    clip = (
        optax.clip_by_global_norm(config.clip_norm)
        if config.clip_norm
        else optax.identity()
    )
    chain = optax.chain(
        clip,
        optax.add_decayed_weights(config.weight_decay),
        optax.trace(config.momentum),
        optax.scale_by_learning_rate(schedule),
    )

    def update(gradients, state, params):
        updates, state = chain.update(gradients, state, params)
        mask = frozen(params)
        if mask is None:
            return updates, state
        # Their gradients are 0 already, but the weight decay would shrink them.
        updates = jax.tree.map(
            lambda change, keep: jnp.zeros_like(change) if keep else change,
            updates,
            mask,
        )
        return updates, state

    return optax.GradientTransformation(chain.init, update)
