"""The networks once more, as plain PyTorch modules: the oracle of these tests.

Every relu is a module of its own, because Captum replaces the gradients of modules.
"""

import numpy as np
import torch
from torch import nn


def factorised_mid(cin, cout):
    return int(3 * cin * cout * 9 / (cin * 9 + 3 * cout))


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


class Block(nn.Module):
    def __init__(self, cin, cout, stride, shortcut, factorised):
        super().__init__()

        def conv(cin, stride):
            if factorised:
                mid = factorised_mid(cin, cout)
                return Factorised(cin, mid, cout, (3, 3), stride, (1, 1))
            st, ss = stride
            return nn.Conv3d(cin, cout, 3, (st, ss, ss), 1, bias=False)

        self.conv1, self.bn1 = conv(cin, stride), nn.BatchNorm3d(cout, eps=1e-3)
        self.conv2, self.bn2 = conv(cout, (1, 1)), nn.BatchNorm3d(cout, eps=1e-3)
        self.has_shortcut = shortcut
        if shortcut:
            st, ss = stride
            self.shortcut_conv = nn.Conv3d(cin, cout, 1, (st, ss, ss), bias=False)
            self.shortcut_bn = nn.BatchNorm3d(cout, eps=1e-3)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.has_shortcut:
            x = self.shortcut_bn(self.shortcut_conv(x))
        return self.relu2(x + y)


class Stem(nn.Module):
    def __init__(self, cout, mid):
        super().__init__()
        self.conv = (
            Factorised(3, mid, cout, (3, 7), (1, 2), (1, 3))
            if mid
            else nn.Conv3d(3, cout, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        )
        self.bn = nn.BatchNorm3d(cout, eps=1e-3)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.bn(self.conv(x)))


class Encoder(nn.Module):
    def __init__(self, channels, spatial, temporal, stem_mid=0):
        super().__init__()
        self.stem = Stem(channels[0], stem_mid)
        self.order = ["stem"]
        cin = channels[0]
        for stage, cout in enumerate(channels):
            for block in range(2):
                first = block == 0
                stride = (temporal[stage], spatial[stage]) if first else (1, 1)
                name = f"stage{stage + 1}_block{block + 1}"
                shortcut = first and stage > 0
                module = Block(cin, cout, stride, shortcut, bool(stem_mid))
                self.add_module(name, module)
                self.order.append(name)
                cin = cout

    def forward(self, x):
        for name in self.order:
            x = getattr(self, name)(x)
        return x


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
