"""Times layers of R3D-18, R(2+1)D-18 and the demo's network under each way of computing a convolution.

    python -m benchmarks.conv3d [--layers stem ...] [--impls direct taps ...] [--json FILE]

All ways and, where it is installed, PyTorch (channels last) are timed in turn, so that
the ratios hold on a busy machine too. Clips of 16 frames of 112x112. The stem's input
needs no gradient and gets none. GFLOP/s count the operations of the plain convolution,
whatever a way really computes. Every result is compared with the first way's.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from ctp_jax.models.conv.conv3d import conv3d
from ctp_jax.ranges import CONVOLUTIONS

# input (t, h, w, c), kernel (t, h, w), features, strides; padding keeps sizes
LAYERS = {
    "stem": ((16, 112, 112, 3), (3, 7, 7), 64, (1, 2, 2)),
    "stage1": ((16, 56, 56, 64), (3, 3, 3), 64, (1, 1, 1)),
    "stage2": ((8, 28, 28, 128), (3, 3, 3), 128, (1, 1, 1)),
    "stage3": ((4, 14, 14, 256), (3, 3, 3), 256, (1, 1, 1)),
    "stage4": ((2, 14, 14, 512), (3, 3, 3), 512, (1, 1, 1)),
    "to_stage2": ((16, 56, 56, 64), (3, 3, 3), 128, (2, 2, 2)),
    "to_stage3": ((8, 28, 28, 128), (3, 3, 3), 256, (2, 2, 2)),
    "to_stage4": ((4, 14, 14, 256), (3, 3, 3), 512, (2, 1, 1)),
    "shortcut2": ((16, 56, 56, 64), (1, 1, 1), 128, (2, 2, 2)),
    "spatial1": ((16, 56, 56, 64), (1, 3, 3), 144, (1, 1, 1)),
    "temporal1": ((16, 56, 56, 144), (3, 1, 1), 64, (1, 1, 1)),
    # Of `configs/small.py`, whose batches have 16 clips.
    "thin1": ((8, 28, 28, 8), (3, 3, 3), 8, (1, 1, 1)),
    "thin_to2": ((8, 28, 28, 8), (3, 3, 3), 16, (2, 2, 2)),
}


def example(layer, batch):
    """Input, kernel, cotangent of the output, all NumPy; strides and padding."""
    size, kernel_size, features, strides = LAYERS[layer]
    rng = np.random.default_rng(0)
    padding = tuple(k // 2 for k in kernel_size)
    x = rng.normal(size=(batch, *size)).astype(np.float32)
    kernel = rng.normal(size=(*kernel_size, size[-1], features)).astype(np.float32)
    kernel /= np.sqrt(np.prod(kernel.shape[:-1]), dtype=np.float32)
    out = [
        (n + 2 * p - k) // s + 1
        for n, p, k, s in zip(size, padding, kernel_size, strides)
    ]
    cotangent = rng.normal(size=(batch, *out, features)).astype(np.float32)
    return (x, kernel, cotangent), strides, padding


def ours(impl, layer, arrays, strides, padding, dtype):
    """Calls that do the work of the forward and of the backward pass."""
    x, kernel, cotangent = (jax.device_put(jnp.asarray(a, dtype)) for a in arrays)

    def forward(x, kernel):
        return conv3d(x, kernel, strides, padding, impl)

    def backward(x, kernel, cotangent):
        x_gradient, kernel_gradient = jax.vjp(forward, x, kernel)[1](cotangent)
        return (kernel_gradient,) if layer == "stem" else (kernel_gradient, x_gradient)

    forward_, backward_ = jax.jit(forward), jax.jit(backward)
    return (
        lambda: jax.block_until_ready(forward_(x, kernel)),
        lambda: jax.block_until_ready(backward_(x, kernel, cotangent)),
    )


def peer(layer, arrays, strides, padding, dtype):
    """The same of PyTorch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, dtype)
    x, kernel, cotangent = (torch.tensor(a).to(device, dtype) for a in arrays)
    last = torch.channels_last_3d
    x, cotangent = (
        a.permute(0, 4, 1, 2, 3).contiguous(memory_format=last) for a in (x, cotangent)
    )
    kernel = kernel.permute(4, 3, 0, 1, 2).contiguous(memory_format=last)

    def wait(result):
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    def forward():
        with torch.no_grad():
            y = torch.nn.functional.conv3d(x, kernel, None, strides, padding)
        return wait(y)

    def backward():
        mask = (layer != "stem", True, False)
        x_gradient, kernel_gradient, _ = torch.ops.aten.convolution_backward(
            *(cotangent, x, kernel, None, strides, padding),
            *((1, 1, 1), False, (0, 0, 0), 1, mask),
        )
        gradients = (
            (kernel_gradient,) if layer == "stem" else (kernel_gradient, x_gradient)
        )
        return wait(gradients)

    return forward, backward


def as_numpy(array, is_kernel=False):
    """Of a result of either side, in our layout."""
    if isinstance(array, jax.Array):
        return np.asarray(array, np.float32)
    axes = (2, 3, 4, 1, 0) if is_kernel else (0, 2, 3, 4, 1)
    return array.float().cpu().permute(*axes).numpy()


def results(calls):
    forward, backward = (call() for call in calls)
    return [
        as_numpy(forward),
        as_numpy(backward[0], is_kernel=True),
        *map(as_numpy, backward[1:]),
    ]


def difference(got, want):
    """The largest of any result, relative to the largest number in it."""
    return max(
        float(np.abs(g - w).max() / np.abs(w).max())
        for g, w in zip(got, want, strict=True)
    )


def measure_layer(layer, arguments, with_torch):
    """One row of figures per way."""
    arrays, strides, padding = example(layer, arguments.batch)
    sides = {
        impl: ours(impl, layer, arrays, strides, padding, arguments.dtype)
        for impl in arguments.impls
    }
    if with_torch:
        sides["torch"] = peer(layer, arrays, strides, padding, arguments.dtype)
    want = results(sides[arguments.impls[0]])
    calls = {}
    for name, (forward, backward) in sides.items():
        calls[name, "forward"], calls[name, "backward"] = forward, backward
    times = measure.in_turn(calls, arguments.rounds)
    flops = 2 * arrays[2].size * arrays[1].size / arrays[1].shape[-1]
    rows = []
    for name, both in sides.items():
        forward, backward = (min(times[name, part]) for part in ("forward", "backward"))
        rows.append(
            {
                "layer": layer,
                "way": name,
                "forward_ms": 1e3 * forward,
                "forward_gflops": flops / forward / 1e9,
                "backward_ms": 1e3 * backward,
                "backward_gflops": flops
                * (1 if layer == "stem" else 2)
                / backward
                / 1e9,
                "difference": difference(results(both), want),
            }
        )
    for row in rows:
        row["over_first"] = (rows[0]["forward_ms"] + rows[0]["backward_ms"]) / (
            row["forward_ms"] + row["backward_ms"]
        )
    return rows


def main():
    """Prints the table."""
    parser = measure.make_parser(__spec__.name, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of a side")
    names, ways = tuple(LAYERS), CONVOLUTIONS[1:]
    parser.add_argument("--layers", nargs="+", choices=names, default=names)
    parser.add_argument("--impls", nargs="+", choices=ways, default=ways)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=2, help="clips")
    arguments = parser.parse_args()
    rows, with_torch = [], measure.is_installed("torch")
    for layer in arguments.layers:
        rows += measure_layer(layer, arguments, with_torch)
        print(layer, file=sys.stderr, flush=True)
    header = ["layer", "way", "forward ms", "GFLOP/s", "gradients ms", "GFLOP/s"]
    header += ["difference", f"speed / {arguments.impls[0]}"]
    measure.show(header, [list(row.values()) for row in rows])
    measure.write_json(arguments.json, {"rows": rows})


if __name__ == "__main__":
    measure.run(main)
