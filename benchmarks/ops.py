"""Milliseconds per clip of the drawing and of RoIAlign, beside OpenCV and PyTorch.

    python -m benchmarks.ops [--batch 8] [--rounds 5] [--json FILE]

    crop       window cut out, resized and mirrored: 16 frames of 144x148 to 112x112
    paste      three patches pasted along their trajectories
    tubelets   two patches that also rotate, pasted on two clips
    colour     hue, saturation, brightness and contrast changed
    roi align  three boxes of maps of 14x14 with 512 channels, 5x5 bins; forward, and
               with the gradient

All in float32, on made-up inputs that are on the device already. Ours draws as it does
on this backend, and once more the other way (gathers or products, see
ctp_jax/ops/resample.py). PyTorch runs on the same kind of device; OpenCV and NumPy on the
host, frame by frame. The sides run in turn and must agree: `differs` is the largest
difference, in grey levels or features. GB/s counts what has to be read and written once.
`ratio` is the time over ours: median and range of the rounds.
"""

import functools
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from ctp_jax.ops import paste, resample, roi_align, tubelets
from ctp_jax.tasks import ctp

FRAMES, SIZE, CANVAS, COUNT = 16, 112, (144, 148), 3
SIDE, CHANNELS, BINS, SAMPLES = 14, 512, 5, 2
TOLERANCE = {"crop": 0.02, "paste": 0.05, "colour": 0.05, "roi align": 1e-3}
OURS = "ours"


class Case(NamedTuple):
    """One operation.

    Attributes:
        name: of the operation.
        bytes: that must be read and written, each once.
        sides: name -> a call that returns when its work is done, with the result.
    """

    name: str
    bytes: int
    sides: dict[str, Callable[[], Any]]


def made_batch(rng, batch):
    """Frames, windows that OpenCV can cut at whole pixels, flips: NumPy."""
    height, width = CANVAS
    windows = []
    for short in rng.choice([112, 128, 144], batch):
        scaled = np.array([short, round(width * short / height)])
        corner = rng.integers(0, scaled - SIZE + 1)
        ratio = np.array(CANVAS) / scaled
        windows.append([*(corner * ratio), *(SIZE * ratio)])
    shape = (batch, FRAMES, *CANVAS, 3)
    return {
        "frames": rng.integers(0, 256, shape, np.uint8),
        "window": np.array(windows, np.float32),
        "extent": np.tile(np.float32(CANVAS), (batch, 1)),
        "flip": rng.random(batch) < 0.5,
    }


def made_patches(rng, batch):
    """Random trajectories of boxes of 16 to 64 pixels: `paste.Patches` of NumPy."""
    shape = (batch, COUNT, FRAMES)
    sides = rng.integers(16, 65, (*shape, 2))
    low = rng.integers(0, SIZE - sides + 1)
    return {
        "boxes": np.concatenate([low, low + sides], -1).astype(np.float32),
        "source": rng.integers(0, FRAMES, shape[:2]).astype(np.int32),
        "shape": rng.integers(0, 3, shape[:2]).astype(np.int32),
        "edge": rng.choice([0.3, 0.41, 1.0], shape[:2]).astype(np.float32),
        "opacity": rng.uniform(0.8, 1, shape).astype(np.float32),
        "visible": rng.random(shape) < 0.9,
        "order": np.argsort(rng.random(shape[:2]), axis=1).astype(np.int32),
    }


def made_colours(rng, batch):
    """Every clip is changed: NumPy."""
    return {
        "hue": rng.uniform(-20, 20, batch).astype(np.float32),
        "saturation": rng.uniform(0.7, 1.3, batch).astype(np.float32),
        "hue_saturation": np.ones(batch, bool),
        "brightness": rng.uniform(-30, 30, (batch, FRAMES)).astype(np.float32),
        "contrast": rng.uniform(0.8, 1.2, (batch, FRAMES)).astype(np.float32),
    }


# The calls that are timed ---------------------------------------------------------


def jax_call(function, *arguments):
    """A call of a compiled function on JAX's default device."""
    program, arguments = jax.jit(function), jax.device_put(arguments)
    return lambda: jax.block_until_ready(program(*arguments))


def torch_call(function, *arguments):
    """A call of PyTorch on the same kind of device."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    arguments = jax.tree.map(
        lambda x: torch.from_numpy(np.array(x)).to(device), arguments
    )

    def call():
        out = function(*arguments)
        if device == "cuda":
            torch.cuda.synchronize()
        return out

    return call


def each_clip(function, clips, plan):
    """Of OpenCV: one clip after the other, on the host."""
    return np.stack(
        [
            function(clip, {name: value[i] for name, value in plan.items()})
            for i, clip in enumerate(clips)
        ]
    )


def drawing_cases(rng, batch, opencv, torch):
    """Crop, paste and colour.

    Args:
        rng: NumPy's.
        batch: clips.
        opencv: whether to have its sides.
        torch: the same.
    """
    frames, patches = made_batch(rng, batch), made_patches(rng, batch)
    colours = made_colours(rng, batch)
    shape = (batch, FRAMES, SIZE, SIZE, 3)
    clips = rng.uniform(0, 255, shape).astype(np.float32)

    def crop(each, way):
        names = ("frames", "window", "extent", "flip")
        return resample.crop_resize_flip(*(each[name] for name in names), SIZE, way)

    def pasted(clips, plan, way):
        return paste.paste(clips, paste.Patches(**plan), way)

    found = {"crop": {}, "paste": {}}
    chosen = resample.chosen_way()
    for way in sorted(resample.WAYS, key=lambda way: way != chosen):
        name = OURS if way == chosen else f"ours, {way}"
        cropping = functools.partial(crop, way=way)
        found["crop"][name] = jax_call(cropping, frames)
        pasting = functools.partial(pasted, way=way)
        found["paste"][name] = jax_call(pasting, clips, patches)
    found["colour"] = {OURS: jax_call(ctp.change_colours, clips, colours)}
    if opencv:
        from tests import opencv_drawing as host

        def cut(frames, each):
            return host.scale_and_crop(frames, each["window"], each["flip"], SIZE)

        for name, *arguments in (
            ("crop", cut, frames["frames"], frames),
            ("paste", host.paste, clips, patches),
            ("colour", host.change_colours, clips, colours),
        ):
            found[name]["OpenCV"] = functools.partial(each_clip, *arguments)
    if torch:
        box = np.take_along_axis(
            patches["boxes"], patches["source"][..., None, None], axis=2
        )[:, :, 0]
        outlines = (box, patches["shape"], patches["edge"])
        masks = paste.opacity_mask(*jax.device_put(outlines), SIZE)
        found["crop"]["torch"] = torch_call(torch_crop, frames)
        found["paste"]["torch"] = torch_call(torch_paste, clips, patches, masks)
    read = {"crop": frames["frames"].nbytes}
    return [
        Case(name, read.get(name, clips.nbytes) + clips.nbytes, sides)
        for name, sides in found.items()
    ]


def tubelet_case(rng, batch):
    """Patches of every clip, pasted on it and on the next one; ours alone."""
    plan = {name: rows[:, :2] for name, rows in made_patches(rng, batch).items()}
    plan["order"] = np.tile(np.arange(2, dtype=np.int32), (batch, 1))
    degrees = rng.uniform(-90, 90, plan["opacity"].shape).astype(np.float32)
    clips = rng.uniform(0, 255, (batch, FRAMES, SIZE, SIZE, 3)).astype(np.float32)

    def pasted(clips, plan, degrees):
        pair = jnp.stack([clips, jnp.roll(clips, -1, axis=0)], axis=1)
        inverse = tubelets.inverse_map(degrees, jnp.zeros((*degrees.shape, 2)))
        patches = paste.Patches(**plan)
        return tubelets.paste_tubelets(pair, clips, patches, inverse)

    call = jax_call(pasted, clips, plan, degrees)
    return Case("tubelets", 3 * clips.nbytes, {OURS: call})


def roi_cases(rng, batch, torch):
    """RoIAlign, forward and with the gradient to the features."""
    features = rng.normal(size=(batch, SIDE, SIDE, CHANNELS)).astype(np.float32)
    boxes = made_patches(rng, batch)["boxes"][:, :, 0]
    out = rng.normal(size=(batch, COUNT, BINS, BINS, CHANNELS)).astype(np.float32)

    def ours(features, boxes):
        return roi_align.roi_align(features, boxes, BINS, SIDE / SIZE, SAMPLES)

    def ours_back(features, boxes, out):
        value, back = jax.vjp(lambda f: ours(f, boxes), features)
        return value, back(out)[0]

    forward = {OURS: jax_call(ours, features, boxes)}
    both = {OURS: jax_call(ours_back, features, boxes, out)}
    if torch:
        from benchmarks import torch_step

        # PyTorch's layout: channels first.
        maps, cotangent = np.moveaxis(features, -1, 1), np.moveaxis(out, -1, 2)

        def theirs(maps, boxes):
            stride = SIZE / SIDE
            return torch_step.roi_align(maps, boxes, BINS, stride, SAMPLES)

        def theirs_forward(maps, boxes):
            return theirs(maps, boxes).movedim(2, -1)

        def theirs_back(maps, boxes, cotangent):
            leaf = maps.detach().requires_grad_()
            value = theirs(leaf, boxes)
            value.backward(cotangent)
            return value.detach().movedim(2, -1), leaf.grad.movedim(1, -1)

        forward["torch"] = torch_call(theirs_forward, maps, boxes)
        both["torch"] = torch_call(theirs_back, maps, boxes, cotangent)
    once = features.nbytes + out.nbytes
    return [
        Case("roi align", once, forward),
        Case("roi align, gradient", 2 * once, both),
    ]


# PyTorch's side of the drawing ----------------------------------------------------


def torch_crop(batch):
    """All frames of a clip are channels of one image: one grid a clip."""
    import torch

    frames, window, extent, flip = (
        batch[name] for name in ("frames", "window", "extent", "flip")
    )
    b, t, h, w, k = frames.shape
    steps = (torch.arange(SIZE, device=frames.device) + 0.5) / SIZE
    axes = []
    for axis, side in ((0, h), (1, w)):
        points = window[:, axis, None] + window[:, axis + 2, None] * steps
        # In units of the image's halves, from -1 to 1.
        inside = torch.minimum(points.clamp(min=0.5), extent[:, axis, None] - 0.5)
        axes.append(2 * inside / side - 1)
    y, x = axes
    x = torch.where(flip[:, None], x.flip(1), x)
    grid = [x[:, None].expand(b, SIZE, SIZE), y[:, :, None].expand(b, SIZE, SIZE)]
    images = frames.permute(0, 1, 4, 2, 3).reshape(b, t * k, h, w).float()
    out = torch.nn.functional.grid_sample(
        images, torch.stack(grid, -1), padding_mode="border", align_corners=False
    )
    return out.view(b, t, k, SIZE, SIZE).permute(0, 1, 3, 4, 2)


def torch_paste(clips, plan, masks):
    """Patches stretched by `grid_sample`; clips (b, t, s, s, 3).

    The masks (b, n, s, s), opacity on the pixels of the source frames, are not timed: a
    loader would keep a few shapes.
    """
    import torch

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
        grid = [x[:, None].expand(-1, s, s), y[:, :, None].expand(-1, s, s)]
        image = image.permute(0, 3, 1, 2)[:, None].expand(-1, t, -1, -1, -1)
        patch = torch.nn.functional.grid_sample(
            image.reshape(b * t, 4, s, s),
            torch.stack(grid, -1),
            padding_mode="border",
            align_corners=False,
        )
        patch = patch.view(b, t, 4, s, s).permute(0, 1, 3, 4, 2)
        shown = inside[1][..., :, None] & inside[0][..., None, :]
        alpha = patch[..., 3] * shown * plan["opacity"][rows, n][..., None, None]
        alpha = (alpha * plan["visible"][rows, n][..., None, None])[..., None]
        out = out + (patch[..., :3] - out) * alpha
    return out


# The table ------------------------------------------------------------------------


def to_numpy(result):
    """Arrays of any side as one flat array."""
    results = result if isinstance(result, tuple) else (result,)
    flat = [x.cpu().numpy() if hasattr(x, "cpu") else np.asarray(x) for x in results]
    return np.concatenate([x.reshape(-1) for x in flat])


def compare(case):
    """Largest difference of each side's result from ours; exits where it is too big."""
    results = {name: to_numpy(call()) for name, call in case.sides.items()}
    ours, found = results.pop(OURS), {}
    for name, theirs in results.items():
        found[name] = float(np.abs(ours - theirs).max())
        allowed = TOLERANCE[case.name.partition(",")[0]]
        if not found[name] <= allowed:
            sys.exit(
                f"{case.name}: {name} differs from ours by {found[name]:.3g}, more than "
                f"{allowed}: they do not do the same work"
            )
    return found


def rows_of(case, batch, rounds):
    """The table's rows of one case, ours first."""
    differs = compare(case)
    seconds = measure.in_turn(case.sides, rounds)
    for name, values in seconds.items():
        median = statistics.median(values)
        yield {
            "operation": case.name,
            "side": name,
            "ms per clip": 1e3 * median / batch,
            "GB/s": case.bytes / median / 1e9,
            "ratio": None
            if name == OURS
            else measure.spelled(measure.ratios(values, seconds[OURS])),
            "differs": differs.get(name),
        }


def main(argv=None):
    """Prints the table."""
    parser = measure.make_parser(__spec__.name, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of a side")
    parser.add_argument("--batch", type=int, default=8, help="clips")
    arguments = parser.parse_args(argv)
    opencv, torch = measure.is_installed("cv2"), measure.is_installed("torch")
    if torch:
        from benchmarks import torch_step

        torch = torch_step.is_beside(jax.default_backend())
    rng = np.random.default_rng(0)
    cases = drawing_cases(rng, arguments.batch, opencv, torch)
    cases.append(tubelet_case(rng, arguments.batch))
    cases += roi_cases(rng, arguments.batch, torch)
    rows = []
    for case in cases:
        rows += rows_of(case, arguments.batch, arguments.rounds)
    device = jax.devices()[0].device_kind
    print(f"{device}, {arguments.batch} clips")
    measure.show(tuple(rows[0]), [tuple(row.values()) for row in rows])
    measure.write_json(arguments.json, {"device": device, "rows": rows})


if __name__ == "__main__":
    measure.run(main)
