"""The networks once more, as plain PyTorch modules: the oracle of these tests.

Every relu is a module of its own, because Captum replaces the gradients of modules.
"""

import numpy as np
import torch
from torch import nn


class Factorised(nn.Module):
    def __init__(self, cin, mid, cout, size, stride, padding):
        super().__init__()
        (kt, ks), (st, ss), (pt, ps) = size, stride, padding
        self.spatial = nn.Conv3d(
            cin, mid, (1, ks, ks), (1, ss, ss), (0, ps, ps), bias=False
        )
        self.bn = nn.BatchNorm3d(mid, eps=1e-3)
        self.temporal = nn.Conv3d(
            mid, cout, (kt, 1, 1), (st, 1, 1), (pt, 0, 0), bias=False
        )
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.temporal(self.relu(self.bn(self.spatial(x))))


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
    def __init__(self, name, cin, cout, taps, stride, shortcut, final):
        super().__init__()
        self.shifted, self.shortcut = name == "tsm18", shortcut
        factorised = name.startswith("r2plus1d")

        def conv(cin, size, stride, factorised):
            mid = mid_of(cin, cout, size) if factorised else 0
            return conv3d(cin, cout, size, stride, mid)

        size = (taps, 3, 3)
        self.conv1 = conv(cin, size, stride, factorised)
        self.bn1 = nn.BatchNorm3d(cout, eps=1e-3)
        self.conv2 = conv(cout, size, (1, 1, 1), factorised)
        self.bn2 = nn.BatchNorm3d(cout, eps=1e-3)
        if shortcut:
            factorised = factorised and name.endswith("10")
            self.shortcut_conv = conv(cin, (1, 1, 1), stride, factorised)
            self.shortcut_bn = nn.BatchNorm3d(cout, eps=1e-3)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU() if final else nn.Identity()

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
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(y)))))
        x = self.shortcut_bn(self.shortcut_conv(x)) if self.shortcut else x
        return self.relu2(x + y)


class Stem(nn.Module):
    def __init__(self, cout, taps, mid, pooled):
        super().__init__()
        self.conv = conv3d(3, cout, (taps, 7, 7), (1, 2, 2), mid)
        self.bn, self.relu = nn.BatchNorm3d(cout, eps=1e-3), nn.ReLU()
        pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.pool = pool if pooled else nn.Identity()

    def forward(self, x):
        return self.pool(self.relu(self.bn(self.conv(x))))


def residual(name, channels, spatial, temporal, stem_mid=10):
    """The network of this name; `channels` of its stages, the first also of the stem."""
    blocks = 1 if name.endswith("10") else 2
    taps = {"r2d3d18": (1, 1, 1, 3, 3), "tsm18": (1, 1, 1, 1, 1)}.get(name, (3,) * 5)
    network = nn.Sequential()
    mid = stem_mid if name.startswith("r2plus1d") else 0
    pooled = name in ("r2d3d18", "tsm18")
    network.add_module("stem", Stem(channels[0], taps[0], mid, pooled))
    cin = channels[0]
    for stage, cout in enumerate(channels, 1):
        for block in range(1, blocks + 1):
            first = block == 1
            time, space = temporal[stage - 1], spatial[stage - 1]
            module = Block(
                name,
                cin,
                cout,
                taps[stage],
                (time, space, space) if first else (1, 1, 1),
                shortcut=first and stage > 1,
                final=name != "r2d3d18" or (stage, block) != (4, 2),
            )
            network.add_module(f"stage{stage}_block{block}", module)
            cin = cout
    return network


class C3DBlock(nn.Module):
    def __init__(self, cin, cout, batch_norm):
        super().__init__()
        self.conv = nn.Conv3d(cin, cout, 3, padding=1)
        self.bn = nn.BatchNorm3d(cout, eps=1e-3) if batch_norm else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class C3D(nn.Module):
    """The convolutions of C3D and the pools between them, conv1 to conv5b."""

    def __init__(self, channels, pools, batch_norm):
        """`channels` of all eight; `pools`: the sizes of pool1 to pool4."""
        super().__init__()
        c1, c2, c3a, c3b, c4a, c4b, c5a, c5b = channels
        self.stem = C3DBlock(3, c1, batch_norm)
        self.stage1_block1 = C3DBlock(c1, c2, batch_norm)
        self.stage2_block1 = C3DBlock(c2, c3a, batch_norm)
        self.stage2_block2 = C3DBlock(c3a, c3b, batch_norm)
        self.stage3_block1 = C3DBlock(c3b, c4a, batch_norm)
        self.stage3_block2 = C3DBlock(c4a, c4b, batch_norm)
        self.stage4_block1 = C3DBlock(c4b, c5a, batch_norm)
        self.stage4_block2 = C3DBlock(c5a, c5b, batch_norm)
        self.pools = [nn.MaxPool3d(size, ceil_mode=True) for size in pools]

    def forward(self, x):
        pool1, pool2, pool3, pool4 = self.pools
        x = pool1(self.stem(x))
        x = pool2(self.stage1_block1(x))
        x = pool3(self.stage2_block2(self.stage2_block1(x)))
        x = pool4(self.stage3_block2(self.stage3_block1(x)))
        return self.stage4_block2(self.stage4_block1(x))


def channels_first(array):
    """(b, t, h, w, c) as a torch tensor (b, c, t, h, w)."""
    return torch.tensor(np.array(array, np.float32)).permute(0, 4, 1, 2, 3)


def load(module, params, stats):
    """Copies flax parameters and statistics into the torch module of the same names."""
    for name, child in params.items():
        target = getattr(module, name)
        if "kernel" in child:
            kernel = torch.tensor(np.array(child["kernel"])).permute(4, 3, 0, 1, 2)
            target.weight.data.copy_(kernel)
            if "bias" in child:
                target.bias.data.copy_(torch.tensor(np.array(child["bias"])))
        elif "scale" in child:
            target.weight.data.copy_(torch.tensor(np.array(child["scale"])))
            target.bias.data.copy_(torch.tensor(np.array(child["bias"])))
            target.running_mean.copy_(torch.tensor(np.array(stats[name]["mean"])))
            target.running_var.copy_(torch.tensor(np.array(stats[name]["var"])))
        else:
            load(target, child, stats.get(name, {}))


def statistics(module, stats):
    """The torch module's running statistics, in the structure of `stats`."""
    if "mean" in stats:
        return {"mean": module.running_mean.numpy(), "var": module.running_var.numpy()}
    return {k: statistics(getattr(module, k), v) for k, v in stats.items()}


def gradients(module, params):
    """The torch module's gradients, in the structure and layout of `params`."""
    if "kernel" in params:
        kernel = {"kernel": module.weight.grad.permute(2, 3, 4, 1, 0).numpy()}
        return kernel | ({"bias": module.bias.grad.numpy()} if "bias" in params else {})
    if "scale" in params:
        return {"scale": module.weight.grad.numpy(), "bias": module.bias.grad.numpy()}
    return {k: gradients(getattr(module, k), v) for k, v in params.items()}
