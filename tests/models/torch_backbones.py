"""R-2D3D, the ten-layer networks and TSM as plain PyTorch modules, as `torch_networks`."""

import torch
from torch import nn
from torch.nn import functional

from tests.models.torch_networks import Factorised


def conv3d(cin, cout, size, stride, mid):
    """Not factorised where there are no mid channels."""
    if mid:
        (kt, ks, _), (st, ss, _) = size, stride
        return Factorised(cin, mid, cout, (kt, ks), (st, ss), (kt // 2, ks // 2))
    padding = tuple(each // 2 for each in size)
    return nn.Conv3d(cin, cout, size, stride, padding, bias=False)


def mid_of(cin, cout, size):
    time, space = size[0], size[1] * size[2]
    return time * space * cin * cout // (space * cin + time * cout)


class Block(nn.Module):
    def __init__(self, cin, cout, taps, stride, shortcut, factorised, shifted, final):
        super().__init__()
        self.shifted, self.final, self.shortcut = shifted, final, shortcut

        def conv(cin, size, stride):
            mid = mid_of(cin, cout, size) if factorised else 0
            return conv3d(cin, cout, size, stride, mid)

        size = (taps, 3, 3)
        self.conv1, self.bn1 = conv(cin, size, stride), nn.BatchNorm3d(cout, eps=1e-3)
        self.conv2 = conv(cout, size, (1, 1, 1))
        self.bn2 = nn.BatchNorm3d(cout, eps=1e-3)
        if shortcut:
            self.shortcut_conv = conv(cin, (1, 1, 1), stride)
            self.shortcut_bn = nn.BatchNorm3d(cout, eps=1e-3)

    def forward(self, x):
        y = x
        if self.shifted:
            y, share = torch.zeros_like(x), x.shape[1] // 8
            for t in range(x.shape[2]):
                if t + 1 < x.shape[2]:
                    y[:, :share, t] = x[:, :share, t + 1]
                if t:
                    y[:, share : 2 * share, t] = x[:, share : 2 * share, t - 1]
                y[:, 2 * share :, t] = x[:, 2 * share :, t]
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(y)))))
        x = self.shortcut_bn(self.shortcut_conv(x)) if self.shortcut else x
        return torch.relu(x + y) if self.final else x + y


class Stem(nn.Module):
    def __init__(self, cout, taps, mid, pooled):
        super().__init__()
        self.conv = conv3d(3, cout, (taps, 7, 7), (1, 2, 2), mid)
        self.bn, self.pooled = nn.BatchNorm3d(cout, eps=1e-3), pooled

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        if self.pooled:
            x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        return x


def residual(name, channels, spatial, temporal, stem_mid=10):
    """The network of this name, of a smaller width."""
    blocks = 1 if name.endswith("10") else 2
    taps = {"r2d3d18": (1, 1, 1, 3, 3), "tsm18": (1, 1, 1, 1, 1)}.get(name, (3,) * 5)
    factorised, pooled = name.startswith("r2plus1d"), name in ("r2d3d18", "tsm18")
    network = nn.Sequential()
    mid = stem_mid if factorised else 0
    network.add_module("stem", Stem(channels[0], taps[0], mid, pooled))
    cin = channels[0]
    for stage, cout in enumerate(channels, 1):
        for block in range(1, blocks + 1):
            first = block == 1
            time, space = temporal[stage - 1], spatial[stage - 1]
            module = Block(
                cin,
                cout,
                taps[stage],
                (time, space, space) if first else (1, 1, 1),
                shortcut=first and stage > 1,
                factorised=factorised,
                shifted=name == "tsm18",
                final=name != "r2d3d18" or (stage, block) != (4, 2),
            )
            network.add_module(f"stage{stage}_block{block}", module)
            cin = cout
    return network
