"""A gated recurrent unit at every place of a feature map (Ballas et al., ICLR 2016).

All its convolutions are 1x1, so that places do not see each other: dense layers over the
channels. It computes in float32. Symbols in shapes: d channels; the leading dimensions
are videos and places.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def pointwise(features: int, init_gain: float, name: str) -> nn.Dense:
    """A 1x1 convolution with bias; its kernel is orthogonal times a gain at first."""
    return nn.Dense(
        features,
        kernel_init=nn.initializers.orthogonal(init_gain),
        precision=jax.lax.Precision.HIGHEST,
        name=name,
    )


class ConvGRU(nn.Module):
    """One step of the unit. Children: 'update', 'reset', 'candidate', (2 d, d) each.

    With x the input and h the state: u = sigmoid(update [x, h]), r = sigmoid(reset [x, h]),
    c = tanh(candidate [x, r h]), and the new state is (1 - u) h + u c.

    Attributes:
        dropout: share of the new state that is set to 0 in training, after every step.
        init_gain: of the initial kernels.
    """

    dropout: float = 0.1
    init_gain: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b d"], state: Float[Array, "*b d"], train: bool
    ) -> Float[Array, "*b d"]:
        """The state after this input; with `train`, needs a random key 'dropout'."""

        def layer(name, *inputs):
            joined = jnp.concatenate(inputs, axis=-1)
            return pointwise(x.shape[-1], self.init_gain, name)(joined)

        update = nn.sigmoid(layer("update", x, state))
        reset = nn.sigmoid(layer("reset", x, state))
        candidate = jnp.tanh(layer("candidate", x, reset * state))
        state = (1 - update) * state + update * candidate
        return nn.Dropout(self.dropout, deterministic=not train)(state)
