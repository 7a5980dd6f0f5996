"""Predicts the features of the next blocks of a video: the head of DPC and MemDPC.

Symbols in shapes: b videos of k blocks, t h w c the features of a block, d channels of
its description, r directions, p blocks to predict.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ctp_jax.models.conv_gru import ConvGRU, pointwise


class FutureHead(nn.Module):
    """Describes every block, and predicts the last ones from the first ones.

    The features of a block, averaged over time and projected, describe it at each place.
    A ConvGRU reads the rectified descriptions of the first k - p blocks. From its state,
    two layers predict the next description, which the GRU reads in turn, p times.

    Children: 'projection', 'gru_forward', 'predictor1', 'predictor2'; with `both_ways`
    also 'gru_backward', and with `memory` the parameter 'memory' (m, d).

    Attributes:
        num_blocks: k.
        num_predicted: p.
        channels: d; 0: the features are taken as they are, without a projection.
        memory: number of entries m of which a prediction is a mean, weighted by the
            softmax of what the two layers say (MemDPC); 0: they say the description.
        both_ways: predict also the first blocks from the last ones, in reversed order:
            a GRU of its own, the same two layers and memory.
        dropout: of the GRUs.
        init_gain: of all kernels, which are orthogonal at first.
    """

    num_blocks: int = 8
    num_predicted: int = 3
    channels: int = 256
    memory: int = 0
    both_ways: bool = False
    dropout: float = 0.1
    init_gain: float = 1.0

    @nn.compact
    def __call__(
        self, features: Float[Array, "bk t h w c"], train: bool
    ) -> tuple[Float[Array, "r b p h w d"], Float[Array, "r b p h w d"]]:
        """Predictions and what they should be; with `train`, needs a key 'dropout'.

        Args:
            features: of all blocks, those of a video one after the other.
            train: apply dropout.
        """
        x = features.astype(jnp.promote_types(features.dtype, jnp.float32)).mean(axis=1)
        if self.channels:
            x = pointwise(self.channels, self.init_gain, "projection")(x)
        x = x.reshape(-1, self.num_blocks, *x.shape[1:])
        predict = self._predictor(x.shape[-1])
        seen = self.num_blocks - self.num_predicted
        ways = {"forward": x} | ({"backward": x[:, ::-1]} if self.both_ways else {})
        predicted, target = [], []
        for way, blocks in ways.items():
            gru = ConvGRU(self.dropout, self.init_gain, name=f"gru_{way}")
            state = jnp.zeros_like(blocks[:, 0])
            for block in range(seen):
                state = gru(nn.relu(blocks[:, block]), state, train)
            found = [predict(state)]
            for _ in range(self.num_predicted - 1):
                state = gru(nn.relu(found[-1]), state, train)
                found.append(predict(state))
            predicted.append(jnp.stack(found, axis=1))
            target.append(blocks[:, seen:])
        return jnp.stack(predicted), jnp.stack(target)

    def _predictor(self, channels: int):
        """The function of a state, (b, h, w, d), that predicts the next description."""
        first = pointwise(channels, self.init_gain, "predictor1")
        second = pointwise(self.memory or channels, self.init_gain, "predictor2")

        def predict(state):
            return second(nn.relu(first(state)))

        if not self.memory:
            return predict
        shape = (self.memory, channels)
        memory = self.param("memory", nn.initializers.normal(1.0), shape)

        def look_up(state):
            weights = nn.softmax(predict(state))
            return jnp.dot(weights, memory, precision=jax.lax.Precision.HIGHEST)

        return look_up
