"""Milliseconds per clip of the drawing and of RoIAlign, beside OpenCV and PyTorch.

    python -m benchmarks.ops [--batch_sizes 2,8,32] [--rounds 5] [--cores 1]
        [--ways gathers,products] [--json FILE]

    crop       window cut out, resized and mirrored: 16 frames of 144x148 to 112x112
    paste      three patches pasted along their trajectories
    colour     hue, saturation, brightness and contrast changed
    roi align  three boxes of maps of 7x7 and 14x14 with 512 channels, 5x5 bins;
               forward, and with the gradient

All in float32 and on made-up inputs that are on the device already. JAX runs on its
default device, `--ways` of drawing beside the one chosen there, PyTorch on the same kind; OpenCV and NumPy on the host, frame by frame.
The sides run in turn and must agree: `differs` is the largest difference, in grey levels
or features. GB/s counts what has to be read and written once. `ratio` is the peer's time
over ours: median and range of the rounds. Peers that are not installed are left out.
"""

import functools
import importlib
import os
import statistics
from typing import Any, NamedTuple

import numpy as np

from benchmarks import command_line, measure, ops_peers

FRAMES, SIZE, CANVAS, COUNT = 16, 112, (144, 148), 3
CHANNELS, BINS, RATIO = 512, 5, 2
WAYS = ("gathers", "products")
TOLERANCE = {"crop": 0.02, "paste": 0.05, "colour": 0.05, "roi align": 1e-3}


class Case(NamedTuple):
    """One operation on one batch.

    Attributes:
        name: of the operation.
        batch: clips.
        sides: name -> a call that returns when its work is done, with the result.
        bytes: that must be read and written, each once.
    """

    name: str
    batch: int
    sides: dict[str, Any]
    bytes: int


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


class Sides:
    """Puts inputs where each framework works and waits for its results."""

    def __init__(self, torch, cv2):
        """Modules, or None where they are not there."""
        import jax

        self.jax, self.torch, self.cv2 = jax, torch, cv2
        cuda = torch is not None and jax.default_backend() == "gpu"
        self._device = "cuda" if cuda else "cpu"

    def ours(self, function, *arguments):
        program = self.jax.jit(function)
        arguments = self.jax.device_put(arguments)
        return lambda: self.jax.block_until_ready(program(*arguments))

    def theirs(self, function, *arguments):
        arguments = self.to_torch(arguments)

        def call():
            out = function(*arguments)
            if self._device == "cuda":
                self.torch.cuda.synchronize()
            return out

        return call

    def to_torch(self, tree):
        put = self.torch.from_numpy
        return self.jax.tree.map(
            lambda x: put(np.array(x)).to(self._device), tuple(tree)
        )


def drawing_cases(sides, rng, batch, ways=()):
    """Crop, paste and colour; crop and paste in further ways, too."""
    from ctp_jax.ops import paste, resample
    from ctp_jax.tasks import render

    torch = sides.torch
    frames, patches = made_batch(rng, batch), made_patches(rng, batch)
    colours = made_colours(rng, batch)
    shape = (batch, FRAMES, SIZE, SIZE, 3)
    clips = rng.uniform(0, 255, shape).astype(np.float32)

    def crop(each, way=""):
        names = ("frames", "window", "extent", "flip")
        return resample.crop_resize_flip(*(each[name] for name in names), SIZE, way)

    def pasted(clips, plan, way):
        return paste.paste(clips, paste.Patches(**plan), way)

    found = {
        "crop": {"ours": sides.ours(crop, frames)},
        "paste": {"ours": sides.ours(render.paste_patches, clips, patches)},
        "colour": {"ours": sides.ours(render.change_colours, clips, colours)},
    }
    for way in ways:
        found["crop"][way] = sides.ours(functools.partial(crop, way=way), frames)
        found["paste"][way] = sides.ours(
            functools.partial(pasted, way=way), clips, patches
        )
    if sides.cv2 is not None:
        from tests import opencv_drawing as host

        each = ops_peers.opencv_each
        found["crop"]["OpenCV"] = lambda: ops_peers.opencv_crop(frames, SIZE)
        found["paste"]["OpenCV"] = lambda: each(host.paste, clips, patches)
        found["colour"]["OpenCV"] = lambda: each(host.change_colours, clips, colours)
    if torch is not None:
        box = np.take_along_axis(
            patches["boxes"], patches["source"][..., None, None], axis=2
        )[:, :, 0]
        outlines = (box, patches["shape"], patches["edge"])
        masks = paste.opacity_mask(*sides.jax.device_put(outlines), SIZE)
        found["crop"]["torch"] = sides.theirs(
            lambda each: ops_peers.torch_crop(torch, each, SIZE), frames
        )
        found["paste"]["torch"] = sides.theirs(
            lambda *each: ops_peers.torch_paste(torch, *each), clips, patches, masks
        )
    read = {"crop": frames["frames"].nbytes}
    return [
        Case(name, batch, calls, read.get(name, clips.nbytes) + clips.nbytes)
        for name, calls in found.items()
    ]


def roi_cases(sides, rng, batch, side):
    """RoIAlign of square maps, forward and with the gradient to the features."""
    from ctp_jax.ops.roi_align import roi_align

    torch = sides.torch
    features = rng.normal(size=(batch, side, side, CHANNELS)).astype(np.float32)
    boxes = made_patches(rng, batch)["boxes"][:, :, 0]
    out = rng.normal(size=(batch, COUNT, BINS, BINS, CHANNELS)).astype(np.float32)
    options = (BINS, side / SIZE, RATIO)

    def ours(features, boxes):
        return roi_align(features, boxes, *options)

    def ours_back(features, boxes, out):
        value, back = sides.jax.vjp(lambda f: ours(f, boxes), features)
        return value, back(out)[0]

    forward = {"ours": sides.ours(ours, features, boxes)}
    both = {"ours": sides.ours(ours_back, features, boxes, out)}
    if torch is not None:

        def theirs(features, boxes):
            return ops_peers.torch_roi_align(torch, features, boxes, *options)

        def theirs_back(features, boxes, out):
            leaf = features.detach().requires_grad_()
            value = theirs(leaf, boxes)
            return value.detach(), torch.autograd.grad(value, leaf, out)[0]

        forward["torch"] = sides.theirs(theirs, features, boxes)
        both["torch"] = sides.theirs(theirs_back, features, boxes, out)
    once = features.nbytes + out.nbytes
    return [
        Case(f"roi align {side}x{side}", batch, forward, once),
        Case(f"roi align {side}x{side}, gradient", batch, both, 2 * once),
    ]


def to_numpy(result):
    """Arrays of any side as one flat array."""
    results = result if isinstance(result, tuple) else (result,)
    flat = [x.cpu().numpy() if hasattr(x, "cpu") else np.asarray(x) for x in results]
    return np.concatenate([x.reshape(-1) for x in flat])


def compare(case):
    """Largest difference of each peer's result from ours; exits where it is too big."""
    results = {name: to_numpy(call()) for name, call in case.sides.items()}
    ours, found = results.pop("ours"), {}
    for name, theirs in results.items():
        found[name] = float(np.abs(ours - theirs).max())
        allowed = next(v for k, v in TOLERANCE.items() if case.name.startswith(k))
        if not found[name] <= allowed:
            raise SystemExit(
                f"{case.name}: {name} differs from ours by {found[name]:.3g}, more than "
                f"{allowed}: they do not do the same work"
            )
    return found


def rows_of(case, rounds):
    """The table's rows of one case, ours first."""
    differs = compare(case)
    seconds = measure.in_turn(case.sides, rounds)
    for name, values in seconds.items():
        middle = statistics.median(values)
        ratio = None if name == "ours" else measure.ratios(values, seconds["ours"])
        yield {
            "operation": case.name,
            "batch": case.batch,
            "side": name,
            "ms_per_clip": 1e3 * middle / case.batch,
            "gb_per_s": case.bytes / middle / 1e9,
            "ratio": ratio,
            "differs": differs.get(name),
        }


def parse(argv):
    """The flags."""
    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument("--batch_sizes", type=command_line.counts, default=[2, 8, 32])
    parser.add_argument("--rounds", type=command_line.count, default=5)
    parser.add_argument(
        "--cores",
        type=command_line.count_or_zero,
        default=0,
        help="of the host; 0: all",
    )
    parser.add_argument(
        "--ways",
        type=command_line.some_of(WAYS, or_none=True),
        default=[],
        help=f"of drawing, each timed: {','.join(WAYS)}",
    )
    return parser.parse_args(argv)


def optional(name):
    """A module, or None and a line."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"{name} is not installed: its side is left out")
        return None


def open_sides(cores):
    """The sides that there are, on so many cores of the host."""
    if cores:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
    torch, cv2 = optional("torch"), optional("cv2")
    import jax

    if torch is not None and jax.default_backend() != "cpu":
        if jax.default_backend() != "gpu" or not torch.cuda.is_available():
            print("torch cannot use this device: its side is left out")
            torch = None
        else:
            # As ours: no TF32.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
    if cores and torch is not None:
        torch.set_num_threads(cores)
    if cores and cv2 is not None:
        cv2.setNumThreads(cores)
    device = jax.devices()[0]
    print(f"{device.platform} ({device.device_kind}), cores of the host: ", end="")
    print(len(os.sched_getaffinity(0)))
    return Sides(torch, cv2)


def main(argv=None):
    """Prints the table."""
    arguments = parse(argv)
    sides, rows = open_sides(arguments.cores), []
    for batch in arguments.batch_sizes:
        rng = np.random.default_rng(batch)
        cases = drawing_cases(sides, rng, batch, arguments.ways)
        for side in (7, 14):
            cases += roi_cases(sides, rng, batch, side)
        for case in cases:
            rows += rows_of(case, arguments.rounds)
    table = []
    for row in rows:
        *start, ratio, differs = row.values()
        if ratio is not None:
            ratio = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        differs = None if differs is None else f"{differs:.1e}"
        table.append([*start, ratio, differs])
    header = ("operation", "batch", "side", "ms/clip", "GB/s", "ratio", "differs")
    measure.show(header, table)
    found = {"device": sides.jax.devices()[0].device_kind, "rows": rows}
    measure.write_json(arguments.json, found)


if __name__ == "__main__":
    command_line.run(main)
