"""Times the layers of R3D-18 and R(2+1)D-18 under each way of computing a convolution.

    python -m benchmarks.conv3d [LAYER ...]

One run takes the ways in turn, so that the ratios hold on a busy machine too. Batch 2,
16 frames of 112x112. The stem's input needs no gradient and gets none.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from ctp_jax.models.conv3d import conv3d

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
}
IMPLEMENTATIONS = ("direct", "taps")


def seconds(function, *args):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def measure(layer, repeats, batch):
    """Best seconds of forward and of both gradients, per implementation."""
    size, kernel_size, features, strides = LAYERS[layer]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(batch, *size)), jnp.float32)
    kernel = (*kernel_size, size[-1], features)
    kernel = jnp.asarray(rng.normal(size=kernel), jnp.float32)
    padding = tuple(k // 2 for k in kernel_size)

    def functions(impl):
        def forward(x, kernel):
            return conv3d(x, kernel, strides, padding, impl)

        def backward(x, kernel, cotangent):
            x_gradient, kernel_gradient = jax.vjp(forward, x, kernel)[1](cotangent)
            return kernel_gradient if layer == "stem" else (x_gradient, kernel_gradient)

        return jax.jit(forward), jax.jit(backward)

    compiled = {impl: functions(impl) for impl in IMPLEMENTATIONS}
    best = {impl: [np.inf, np.inf] for impl in IMPLEMENTATIONS}
    for repeat in range(repeats + 1):
        for impl, (forward, backward) in compiled.items():
            output = forward(x, kernel)
            times = (
                seconds(forward, x, kernel),
                seconds(backward, x, kernel, output),
            )
            if repeat:  # the first includes compilation
                best[impl] = np.minimum(best[impl], times)
    return best, 2 * output.size * kernel.size / features


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=", ".join(LAYERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    args = parser.parse_args()
    for layer in args.layers:
        if layer not in LAYERS:
            parser.error(f"no layer {layer!r}: choose from {', '.join(LAYERS)}")
    print("layer       impl     forward ms  GFLOP/s   gradients ms  GFLOP/s   speed-up")
    for layer in args.layers or LAYERS:
        best, flops = measure(layer, args.repeats, args.batch)
        backward_flops = flops * (1 if layer == "stem" else 2)
        for impl, (forward, backward) in best.items():
            gain = sum(best["direct"]) / (forward + backward)
            print(
                f"{layer:<12}{impl:<9}{1e3 * forward:>10.1f}{flops / forward / 1e9:>9.0f}"
                f"{1e3 * backward:>15.1f}{backward_flops / backward / 1e9:>9.0f}"
                f"{gain:>11.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
