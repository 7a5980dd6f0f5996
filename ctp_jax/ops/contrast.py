"""Contrastive losses: a query among its own key and the keys of a queue.

Symbols: b queries, n keys in the queue, m = 1 + n, d numbers in an embedding. Column 0 of logits and
positives is the query's own key, columns 1 to n are the queue's.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def unit(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Vectors of length one; those shorter than 1e-12 are divided by that.

    As `torch.nn.functional.normalize`.

    >>> unit(jnp.array([3.0, -4.0])).round(3).tolist()
    [0.6000000238418579, -0.800000011920929]
    """
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-24))


def similarities(
    query: Float[Array, "b d"],
    key: Float[Array, "b d"],
    queue: Float[Array, "n d"],
    temperature: float,
) -> Float[Array, "b m"]:
    """Logits: products with the own key and with those of the queue, over the temperature.

    >>> query, key = jnp.eye(2)[:1], jnp.eye(2)[:1]
    >>> similarities(query, key, jnp.array([[0.0, 1.0], [-1.0, 0.0]]), 0.5).tolist()
    [[2.0, 0.0, -2.0]]
    """
    own = (query * key).sum(-1, keepdims=True)
    # Not TF32: at temperature 0.07 its errors would be 1 % of a probability.
    others = jnp.matmul(query, queue.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([own, others], axis=1) / temperature


def mean_log_likelihood(
    logits: Float[Array, "b m"], positives: Bool[Array, "b m"]
) -> Float[Array, " b"]:
    """-mean over positives of log-softmax: every positive counts by itself (UberNCE).

    With one positive, this is cross-entropy, as is `log_sum_likelihood`.

    >>> logits = jnp.zeros((1, 4))
    >>> positives = jnp.array([[True, True, False, False]])
    >>> mean_log_likelihood(logits, positives).round(3).tolist()  # log 4
    [1.3860000371932983]
    """
    likely = jnp.where(positives, jax.nn.log_softmax(logits), 0.0)
    return -likely.sum(axis=1) / positives.sum(axis=1)


def log_sum_likelihood(
    logits: Float[Array, "b m"], positives: Bool[Array, "b m"]
) -> Float[Array, " b"]:
    """-log of the positives' summed softmax: the most alike one may do (CoCLR, MIL-NCE).

    >>> logits = jnp.zeros((1, 4))
    >>> positives = jnp.array([[True, True, False, False]])
    >>> log_sum_likelihood(logits, positives).round(3).tolist()  # log 2
    [0.6930000185966492]
    """
    chosen = jnp.where(positives, logits, -jnp.inf)
    return jax.nn.logsumexp(logits, axis=1) - jax.nn.logsumexp(chosen, axis=1)
