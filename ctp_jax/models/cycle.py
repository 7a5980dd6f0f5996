"""CEP's heads: embeddings of appearance and of time, and predictions of the latter.

Symbols in shapes: b clips, t h w positions and c channels of the features, d numbers in an
embedding. Vectors have any length; who calls makes them unit vectors.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ctp_jax.models.heads import ProjectionHead, pooled
from ctp_jax.models.layers import BatchNorm


class CycleHead(nn.Module):
    """Two embeddings of each clip. Children: 'appearance', 'time'.

    Attributes:
        dim: d.
        hidden: width of the hidden layer of either; 0: as many as the features have.
        epsilon: of the batch normalisation in 'time'.
        groups: of batch normalisation, see `ctp_jax.models.layers.BatchNorm`.
    """

    dim: int
    hidden: int
    epsilon: float
    groups: int

    @nn.compact
    def __call__(
        self, features: Float[Array, "b t h w c"], train: bool
    ) -> dict[str, Float[Array, "b d"]]:
        """'appearance' tells videos apart, 'time' the clips of one video."""
        hidden = self.hidden or features.shape[-1]
        appearance = ProjectionHead(self.dim, hidden, name="appearance")
        time = _MLP((hidden, self.dim), self.epsilon, self.groups, name="time")
        return {
            "appearance": appearance(features, train),
            "time": time(pooled(features), train),
        }


class CyclePredictors(nn.Module):
    """Predicts embeddings of past, present and future from each other, and back again.

    Children: 'ahead', from an embedding to that of the next clip, and 'back'. Each call of
    one of these has the batch statistics of its own inputs.

    Attributes:
        widths: of the dense layers of either, the last one d.
        epsilon: of batch normalisation.
        groups: of batch normalisation.
    """

    widths: tuple[int, ...]
    epsilon: float
    groups: int

    @nn.compact
    def __call__(
        self,
        past: Float[Array, "b d"],
        present: Float[Array, "b d"],
        future: Float[Array, "b d"],
        train: bool,
    ) -> tuple[Float[Array, "3 2 b d"], Float[Array, "3 2 b d"]]:
        """Predictions of past, present and future, two of each.

        Returns:
            Those from other clips: of the past from the present, and in two steps from
            the future; of the present from both; of the future like the past. And those
            by a cycle: there, as predicted before, and back again.
        """
        shared = (self.widths, self.epsilon, self.groups)
        ahead, back = (_MLP(*shared, name=name) for name in ("ahead", "back"))

        def forward(x):
            return ahead(x, train)

        def backward(x):
            return back(x, train)

        present_ahead, future_1 = forward(past), forward(present)
        future_2 = forward(present_ahead)
        present_back, past_1 = backward(future), backward(present)
        past_2 = backward(present_back)
        there = ((past_1, past_2), (present_ahead, present_back), (future_1, future_2))
        again = (
            (backward(present_ahead), backward(backward(future_2))),
            (backward(future_1), forward(past_1)),
            (forward(present_back), forward(forward(past_2))),
        )
        return jnp.array(there), jnp.array(again)


class _MLP(nn.Module):
    """Dense layers with batch normalisation and relu between them.

    Children: 'dense1', 'bn1', 'dense2', ... Initialised as PyTorch's linear layers, but
    for the biases.
    """

    widths: tuple[int, ...]
    epsilon: float
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n"], train: bool) -> Float[Array, "b d"]:
        for number, width in enumerate(self.widths, 1):
            if number > 1:
                norm = BatchNorm(
                    self.epsilon,
                    dtype=x.dtype,
                    groups=self.groups,
                    name=f"bn{number - 1}",
                )
                x = nn.relu(norm(x, train))
            x = nn.Dense(
                width,
                kernel_init=nn.initializers.variance_scaling(
                    1 / 3, "fan_in", "uniform"
                ),
                precision=jax.lax.Precision.HIGHEST,
                name=f"dense{number}",
            )(x)
        return x
