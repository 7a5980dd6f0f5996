"""Networks of other code bases in PyTorch, written from their definitions.

Their submodules have the names that the originals give theirs, so that state dicts
have their keys. Strides are pairs (temporal, spatial) per stage.
"""

import json
from collections import OrderedDict

import torch
from torch import nn

STRIDES = ((1, 1), (2, 2), (2, 2), (2, 2))
CTP_STRIDES = ((1, 1), (2, 2), (2, 2), (2, 1))


def conv(cin, cout, size, stride=(1, 1, 1)):
    padding = [s // 2 for s in size]
    return nn.Conv3d(cin, cout, size, stride, padding, bias=False)


def mid_of(cin, cout):
    return (27 * cin * cout) // (9 * cin + 3 * cout)


def named(**modules):
    return nn.Sequential(OrderedDict(modules))


# pyvrl ---------------------------------------------------------------------------


def pyvrl_norm(channels):
    return nn.BatchNorm3d(channels, eps=1e-3)


def pyvrl_conv(cin, cout, stride, factorised):
    t, s = stride
    if not factorised:
        return named(conv=conv(cin, cout, (3, 3, 3), (t, s, s)))
    mid = mid_of(cin, cout)
    return named(
        conv_s=conv(cin, mid, (1, 3, 3), (1, s, s)),
        bn_s=pyvrl_norm(mid),
        relu_s=nn.ReLU(),
        conv_t=conv(mid, cout, (3, 1, 1), (t, 1, 1)),
    )


class PyvrlBlock(nn.Module):
    def __init__(self, cin, cout, stride, factorised):
        super().__init__()
        self.conv1 = pyvrl_conv(cin, cout, stride, factorised)
        self.bn1 = pyvrl_norm(cout)
        self.conv2 = pyvrl_conv(cout, cout, (1, 1), factorised)
        self.bn2 = pyvrl_norm(cout)
        self.downsample = None
        if stride != (1, 1) or cin != cout:
            t, s = stride
            self.downsample = named(conv=conv(cin, cout, (1, 1, 1), (t, s, s)))
            self.downsample_bn = pyvrl_norm(cout)

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample_bn(self.downsample(x))
        return torch.relu(x + y)


def pyvrl_encoder(channels, stem_mid=0, strides=CTP_STRIDES):
    """R3D-18, or with `stem_mid` R(2+1)D-18."""
    first = channels[0]
    if stem_mid:
        stem = named(
            conv_s=conv(3, stem_mid, (1, 7, 7), (1, 2, 2)),
            bn_s=pyvrl_norm(stem_mid),
            relu_s=nn.ReLU(),
            conv_t=conv(stem_mid, first, (3, 1, 1)),
            bn_t=pyvrl_norm(first),
            relu_t=nn.ReLU(),
        )
    else:
        stem = named(
            conv=conv(3, first, (3, 7, 7), (1, 2, 2)),
            bn=pyvrl_norm(first),
            relu=nn.ReLU(),
        )
    return stages(stem, channels, strides, PyvrlBlock, bool(stem_mid))


class PyvrlCtPHead(nn.Module):
    """All of the head but RoIAlign, which has no parameters: `pool` does it."""

    def __init__(self, channels, hidden, steps, size, frames):
        super().__init__()
        self.temporal_conv = nn.Conv3d(channels, hidden, (steps, 1, 1))
        self.fc1 = nn.Linear(hidden * size * size, hidden)
        self.pred_head = nn.Linear(hidden, frames * 4)

    def forward(self, features, pool):
        maps = torch.relu(self.temporal_conv(features).squeeze(2))
        x = torch.relu(self.fc1(pool(maps).flatten(1)))
        return self.pred_head(x)


class PyvrlCtP(nn.Module):
    def __init__(self, backbone, **head):
        super().__init__()
        self.backbone, self.head = backbone, PyvrlCtPHead(**head)


class PyvrlRecognizer(nn.Module):
    def __init__(self, backbone, channels, classes):
        super().__init__()
        self.backbone = backbone
        self.cls_head = named(fc_cls=nn.Linear(channels, classes))

    def forward(self, x):
        return self.cls_head(self.backbone(x).mean((2, 3, 4)))


# torchvision ---------------------------------------------------------------------


def torchvision_conv(cin, cout, mid, stride, factorised):
    t, s = stride
    if not factorised:
        return conv(cin, cout, (3, 3, 3), (t, s, s))
    return nn.Sequential(
        conv(cin, mid, (1, 3, 3), (1, s, s)),
        nn.BatchNorm3d(mid),
        nn.ReLU(),
        conv(mid, cout, (3, 1, 1), (t, 1, 1)),
    )


class TorchvisionBlock(nn.Module):
    def __init__(self, cin, cout, stride, factorised):
        super().__init__()
        mid = mid_of(cin, cout)
        first = torchvision_conv(cin, cout, mid, stride, factorised)
        second = torchvision_conv(cout, cout, mid, (1, 1), factorised)
        self.conv1 = nn.Sequential(first, nn.BatchNorm3d(cout), nn.ReLU())
        self.conv2 = nn.Sequential(second, nn.BatchNorm3d(cout))
        self.downsample = None
        if stride != (1, 1) or cin != cout:
            t, s = stride
            self.downsample = nn.Sequential(
                conv(cin, cout, (1, 1, 1), (t, s, s)), nn.BatchNorm3d(cout)
            )

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        if self.downsample is not None:
            x = self.downsample(x)
        return torch.relu(x + y)


class TorchvisionClassifier(nn.Sequential):
    def __init__(self, children, channels, classes):
        super().__init__(children)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3, 4)))

    def features(self, x):
        for name, module in self.named_children():
            x = x if name == "fc" else module(x)
        return x


def torchvision_classifier(channels, stem_mid=0, classes=400):
    """r3d_18, or with `stem_mid` r2plus1d_18."""
    first = channels[0]
    if stem_mid:
        stem = nn.Sequential(
            conv(3, stem_mid, (1, 7, 7), (1, 2, 2)),
            nn.BatchNorm3d(stem_mid),
            nn.ReLU(),
            conv(stem_mid, first, (3, 1, 1)),
            nn.BatchNorm3d(first),
            nn.ReLU(),
        )
    else:
        stem = nn.Sequential(
            conv(3, first, (3, 7, 7), (1, 2, 2)), nn.BatchNorm3d(first), nn.ReLU()
        )
    whole = stages(stem, channels, STRIDES, TorchvisionBlock, bool(stem_mid))
    children = OrderedDict(whole.named_children())
    return TorchvisionClassifier(children, channels[-1], classes)


def torchvision_unit(cin, cout, size=(1, 1, 1), stride=(1, 1, 1)):
    norm = nn.BatchNorm3d(cout, eps=1e-3)
    return nn.Sequential(conv(cin, cout, size, stride), norm, nn.ReLU())


def torchvision_separable(cin, cout, size, stride=1):
    k, s = size, stride
    return nn.Sequential(
        torchvision_unit(cin, cout, (1, k, k), (1, s, s)),
        torchvision_unit(cout, cout, (k, 1, 1), (s, 1, 1)),
    )


class TorchvisionMixed(nn.Module):
    def __init__(self, cin, a, b, c, d, e, f, gates=False):
        super().__init__()
        self.branch0 = torchvision_unit(cin, a)
        self.branch1 = nn.Sequential(
            torchvision_unit(cin, b), torchvision_separable(b, c, 3)
        )
        self.branch2 = nn.Sequential(
            torchvision_unit(cin, d), torchvision_separable(d, e, 3)
        )
        self.branch3 = nn.Sequential(
            nn.MaxPool3d(3, 1, padding=1), torchvision_unit(cin, f)
        )
        self.gates = [nn.Linear(n, n) for n in (a, c, e, f)] if gates else None

    def forward(self, x):
        outputs = [getattr(self, f"branch{n}")(x) for n in range(4)]
        if self.gates:
            outputs = [
                y * torch.sigmoid(gate(y.mean((2, 3, 4))))[:, :, None, None, None]
                for y, gate in zip(outputs, self.gates, strict=True)
            ]
        return torch.cat(outputs, 1)


class TorchvisionS3D(nn.Module):
    """s3d; `scale` channels, at least 8, as ours of smaller widths."""

    MIXED = (
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    )

    def __init__(self, scale=lambda channels: channels, classes=400, gates=False):
        super().__init__()
        layers = [
            torchvision_separable(3, scale(64), 7, 2),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            torchvision_unit(scale(64), scale(64)),
            torchvision_separable(scale(64), scale(192), 3),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        ]
        cin = scale(192)
        for number, mixed in enumerate(self.MIXED):
            a, b, c, d, e, f = map(scale, mixed)
            if number == 2:
                layers.append(nn.MaxPool3d(3, 2, padding=1))
            if number == 7:
                layers.append(nn.MaxPool3d(2, 2))
            layers.append(TorchvisionMixed(cin, a, b, c, d, e, f, gates))
            cin = a + c + e + f
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AvgPool3d((2, 7, 7), 1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Conv3d(cin, classes, 1))

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x))).mean((2, 3, 4))


def narrow(channels):
    """An eighth, at least 8."""
    return max(8, 8 * round(channels / 64))


def narrow_state(net):
    """Tensors of a narrow S3D, and what a file of ours would say of them."""
    about = {"width": 0.125, "epsilon": 1e-3, "spatial_strides": [1, 2, 2, 2]}
    about = json.dumps({**about, "temporal_strides": [1, 1, 2, 2]})
    state = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    return state, {"architecture": about}


# VCOP ----------------------------------------------------------------------------


class VcopC3D(nn.Module):
    """C3D as VCOP has it; with batch_norm=False, under the same names, as of 2015."""

    LAYERS = ("1", "2", "3a", "3b", "4a", "4b", "5a", "5b")

    def __init__(self, channels, batch_norm=True, classes=101):
        super().__init__()
        cin = 3
        for layer, cout in zip(self.LAYERS, channels, strict=True):
            self.add_module(f"conv{layer}", nn.Conv3d(cin, cout, 3, padding=1))
            if batch_norm:
                self.add_module(f"bn{layer}", nn.BatchNorm3d(cout))
            cin = cout
        self.linear = nn.Linear(cin, classes)

    def features(self, x):
        for layer in self.LAYERS:
            x = getattr(self, f"conv{layer}")(x)
            x = torch.relu(getattr(self, f"bn{layer}", nn.Identity())(x))
            if layer in ("1", "2", "3b", "4b"):
                x = nn.functional.max_pool3d(x, (1, 2, 2) if layer == "1" else 2)
        return x

    def forward(self, x):
        return self.linear(self.features(x).mean((2, 3, 4)))


def vcop_conv(cin, cout, size, stride, factorised):
    if not factorised:
        return named(temporal_spatial_conv=conv(cin, cout, size, stride))
    time, space = size[0], size[1] * size[2]
    mid = time * space * cin * cout // (space * cin + time * cout)
    return named(
        spatial_conv=conv(cin, mid, (1, *size[1:]), (1, *stride[1:])),
        bn=nn.BatchNorm3d(mid),
        relu=nn.ReLU(),
        temporal_conv=conv(mid, cout, (size[0], 1, 1), (stride[0], 1, 1)),
    )


class VcopBlock(nn.Module):
    def __init__(self, cin, cout, factorised):
        super().__init__()
        self.downsample = cin != cout
        stride = (2, 2, 2) if self.downsample else (1, 1, 1)
        if self.downsample:
            self.downsampleconv = vcop_conv(cin, cout, (1, 1, 1), stride, factorised)
            self.downsamplebn = nn.BatchNorm3d(cout)
        self.conv1 = vcop_conv(cin, cout, (3, 3, 3), stride, factorised)
        self.bn1 = nn.BatchNorm3d(cout)
        self.conv2 = vcop_conv(cout, cout, (3, 3, 3), (1, 1, 1), factorised)
        self.bn2 = nn.BatchNorm3d(cout)

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        x = self.downsamplebn(self.downsampleconv(x)) if self.downsample else x
        return torch.relu(x + y)


class VcopResNet(nn.Module):
    """The ten-layer R3D or R(2+1)D of VCOP."""

    def __init__(self, channels, factorised, classes=101):
        super().__init__()
        self.conv1 = vcop_conv(3, channels[0], (3, 7, 7), (1, 2, 2), factorised)
        self.bn1 = nn.BatchNorm3d(channels[0])
        cin = channels[0]
        for number, cout in enumerate(channels, 2):
            block = VcopBlock(cin, cout, factorised)
            self.add_module(f"conv{number}", named(block1=block))
            cin = cout
        self.linear = nn.Linear(cin, classes)

    def features(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.conv5(self.conv4(self.conv3(self.conv2(x))))

    def forward(self, x):
        return self.linear(self.features(x).mean((2, 3, 4)))


class ImageBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        return torch.relu(x + y)


class ImageBottleneck(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        inner = cout // 4
        self.conv1 = nn.Conv2d(cin, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
        if self.downsample is not None:
            x = self.downsample(x)
        return torch.relu(x + y)


class ImageResNet(nn.Module):
    """The 2-D resnet18; with four times the channels in a stage as in the stem, resnet50.

    `features` leaves its max-pooling out, as our R3D does.
    """

    def __init__(self, channels, classes=1000, deep=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        cin, block = channels[0], ImageBottleneck if deep else ImageBlock
        for stage, count in enumerate((3, 4, 6, 3) if deep else (2, 2, 2, 2)):
            cout = channels[stage] * (4 if deep else 1)
            blocks = [block(cin, cout, 1 + (stage > 0))]
            blocks += [block(cout, cout, 1) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            cin = cout
        self.fc = nn.Linear(cin, classes)

    def features(self, x, pooled=False):
        x = torch.relu(self.bn1(self.conv1(x)))
        if pooled:
            x = nn.functional.max_pool2d(x, 3, 2, 1)
        for stage in range(4):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x


# Both ----------------------------------------------------------------------------


def stages(stem, channels, strides, block, factorised):
    children = {"stem": stem}
    cin = channels[0]
    for stage, (cout, stride) in enumerate(zip(channels, strides, strict=True)):
        first = block(cin, cout, stride, factorised)
        second = block(cout, cout, (1, 1), factorised)
        children[f"layer{stage + 1}"] = nn.Sequential(first, second)
        cin = cout
    return named(**children)


@torch.no_grad()
def scramble(module):
    """Random weights that keep activations around 1, and random statistics.

    Small variances among them, so that a wrong epsilon shows.
    """
    rng = torch.Generator().manual_seed(0)

    def uniform(tensor, low, high):
        return tensor.uniform_(low, high, generator=rng)

    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            fan_in = part.weight[0].numel()
            part.weight.normal_(0, (2 / fan_in) ** 0.5, generator=rng)
            if part.bias is not None:
                part.bias.normal_(0, 0.3, generator=rng)
        elif isinstance(part, (nn.BatchNorm2d, nn.BatchNorm3d)):
            uniform(part.weight, 0.3, 1.0)
            part.bias.normal_(0, 0.2, generator=rng)
            part.running_mean.normal_(0, 0.2, generator=rng)
            uniform(part.running_var, 0.01, 1.5)
            part.num_batches_tracked.fill_(1234)
    return module.eval()
