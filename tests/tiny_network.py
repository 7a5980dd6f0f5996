"""An encoder outside the package: a convolution a part, to compile in no time."""

from ctp_jax.models.base import Encoder, attributes
from ctp_jax.models.layers import BatchNorm, Conv3D

CHANNELS = (16, 16, 16, 16)


def create(model):
    return Tiny(**attributes(model))


class Tiny(Encoder):
    """Children: 'stem' and 'stage1_conv' to 'stage4_conv', each with a norm."""

    stage_channels = CHANNELS

    def channels(self):
        # Without the lower limit of ours, which is 8.
        return [max(4, round(each * self.width)) for each in CHANNELS]

    def _part(self, part, strides, x, train):
        name = f"stage{part}_conv" if part else "stem"
        channels = self.channels()[max(part - 1, 0)]
        options = {"dtype": self.dtype, "impl": "direct", "name": name}
        x = Conv3D(channels, (3, 3, 3), strides, (1, 1, 1), **options)(x)
        norm = {"epsilon": self.epsilon, "dtype": self.dtype}
        norm["groups"] = self.batch_norm_groups
        norm["name"] = f"stage{part}_norm" if part else "stem_norm"
        return self.relu(BatchNorm(**norm)(x, train))
