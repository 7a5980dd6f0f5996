"""The operations of `benchmarks.ops` as one would write them without JAX.

OpenCV and NumPy work on one clip and one frame after the other, on the host; PyTorch on
whole batches, channels first, on the device that it is given.
"""

import numpy as np


def opencv_crop(batch, size):
    """Whole frames resized, then cut and mirrored."""
    from tests import opencv_drawing

    return np.stack(
        [
            opencv_drawing.scale_and_crop(frames, window, flip, size)
            for frames, window, flip in zip(
                batch["frames"], batch["window"], batch["flip"], strict=True
            )
        ]
    )


def opencv_each(draw, clips, plan):
    """`paste` or `change_colours` of `tests.opencv_drawing` on every clip."""
    return np.stack(
        [
            draw(clip, {name: value[i] for name, value in plan.items()})
            for i, clip in enumerate(clips)
        ]
    )


def torch_crop(torch, batch, size):
    """All frames of a clip are channels of one image: one grid a clip."""
    frames, window, extent, flip = (
        batch[name] for name in ("frames", "window", "extent", "flip")
    )
    b, t, h, w, k = frames.shape
    steps = (torch.arange(size, device=frames.device) + 0.5) / size
    axes = []
    for axis, side in ((0, h), (1, w)):
        points = window[:, axis, None] + window[:, axis + 2, None] * steps
        # In units of the image's halves, from -1 to 1.
        inside = torch.minimum(points.clamp(min=0.5), extent[:, axis, None] - 0.5)
        axes.append(2 * inside / side - 1)
    y, x = axes
    x = torch.where(flip[:, None], x.flip(1), x)
    grid = torch.stack(
        [x[:, None].expand(b, size, size), y[:, :, None].expand(b, size, size)], -1
    )
    images = frames.permute(0, 1, 4, 2, 3).reshape(b, t * k, h, w).float()
    out = torch.nn.functional.grid_sample(
        images, grid, padding_mode="border", align_corners=False
    )
    return out.view(b, t, k, size, size).permute(0, 1, 3, 4, 2)


def torch_paste(torch, clips, plan, masks):
    """Patches stretched by `grid_sample`; clips (b, t, s, s, 3).

    Args:
        torch: the module.
        clips: (b, t, s, s, 3).
        plan: fields of `ctp_jax.ops.paste.Patches`.
        masks: (b, n, s, s), opacity on the pixels of the source frames: not timed, as
            a loader would keep a few shapes.
    """
    b, t, s = clips.shape[:3]
    out, rows = clips, torch.arange(b, device=clips.device)
    pixels = torch.arange(s, device=clips.device) + 0.5
    for position in range(plan["order"].shape[1]):
        n = plan["order"][:, position].long()
        boxes, source = plan["boxes"][rows, n], plan["source"][rows, n].long()
        box = boxes[rows, source]
        image = torch.cat([clips[rows, source], masks[rows, n][..., None]], -1)
        coordinates, inside = [], []
        for axis in (0, 1):
            low, high = boxes[:, :, axis, None], boxes[:, :, axis + 2, None]
            first, last = box[:, None, axis, None], box[:, None, axis + 2, None]
            scale = (last - first) / (high - low).clamp(min=1)
            at = first + (pixels - low) * scale
            at = torch.minimum(torch.maximum(at, first + 0.5), last - 0.5)
            coordinates.append(2 * at / s - 1)
            inside.append((pixels > low) & (pixels < high))
        x, y = (c.reshape(b * t, s) for c in coordinates)
        grid = torch.stack(
            [x[:, None].expand(-1, s, s), y[:, :, None].expand(-1, s, s)], -1
        )
        image = image.permute(0, 3, 1, 2)[:, None].expand(-1, t, -1, -1, -1)
        patch = torch.nn.functional.grid_sample(
            image.reshape(b * t, 4, s, s),
            grid,
            padding_mode="border",
            align_corners=False,
        )
        patch = patch.view(b, t, 4, s, s).permute(0, 1, 3, 4, 2)
        shown = inside[1][..., :, None] & inside[0][..., None, :]
        alpha = patch[..., 3] * shown * plan["opacity"][rows, n][..., None, None]
        alpha = (alpha * plan["visible"][rows, n][..., None, None])[..., None]
        out = out + (patch[..., :3] - out) * alpha
    return out


def torch_roi_align(torch, features, boxes, out, scale, ratio):
    """Bilinear samples, four rows of features read for each; as torchvision defines them.

    Args:
        torch: the module.
        features: (b, h, w, c).
        boxes: (b, n, 4), in pixels.
        out: bins along each axis.
        scale: feature pixels per pixel.
        ratio: samples along each axis of a bin.
    """
    b, h, w, c = features.shape
    steps = torch.arange(out * ratio, device=features.device) + 0.5
    steps = steps / (out * ratio)
    x1, y1, x2, y2 = (boxes * scale - 0.5).unbind(-1)
    corners, weights = [], []
    for low, high, side in ((y1, y2, h), (x1, x2, w)):
        at = low[..., None] + (high - low)[..., None] * steps
        inside = (at >= -1) & (at <= side)
        at = at.clamp(0, side - 1)
        floor = at.floor().long()
        part = at - floor
        corners.append((floor, (floor + 1).clamp(max=side - 1)))
        weights.append(((1 - part) * inside, part * inside))
    rows, total = features.reshape(b * h * w, c), 0
    first = torch.arange(b, device=features.device)[:, None, None, None] * (h * w)
    for i in (0, 1):
        for j in (0, 1):
            index = corners[0][i][..., :, None] * w + corners[1][j][..., None, :]
            weight = weights[0][i][..., :, None] * weights[1][j][..., None, :]
            read = rows.index_select(0, (first + index).flatten())
            total = total + read.view(*index.shape, c) * weight[..., None]
    n = boxes.shape[1]
    return total.view(b, n, out, ratio, out, ratio, c).mean((3, 5))
