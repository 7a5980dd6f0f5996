"""A network outside the package, as a user would write one: five small layers."""

from ctp_jax.models import base, layers


class Network(base.Encoder):
    stage_channels = (24, 24, 24, 24)

    def _part(self, part, strides, x, train):
        name = f"stage{part}_conv" if part else "stem"
        features = base.scaled(self.stage_channels[0], self.width)
        conv = layers.Conv3D(features, (3, 3, 3), strides, (1, 1, 1), name=name)
        return self.relu(conv(x))


def create(model):
    return Network(**base.attributes(model))
