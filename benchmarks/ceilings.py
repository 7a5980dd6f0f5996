"""What this device reaches at its best: matrix products, and copying.

    python -m benchmarks.ceilings [--json FILE]

The fastest of several calls of several products in a row, of random numbers: zeros
would take less power and run faster. `float32` is true float32; `tf32` is what GPUs make
of it by default.
"""

import statistics

import jax
import jax.numpy as jnp

from benchmarks import command_line, measure

DTYPES = ("float32", "tf32", "bfloat16")


def matmul(dtype: str, size: int = 0, times: int = 0):
    """A call that multiplies square matrices, and the FLOPs that it takes.

    Args:
        dtype: one of DTYPES.
        size: side of the matrices; 0: 2048 on a CPU, 8192 elsewhere.
        times: products in a row; 0: 1 on a CPU, 10 elsewhere.
    """
    cpu = jax.default_backend() == "cpu"
    size, times = size or (2048 if cpu else 8192), times or (1 if cpu else 10)
    numbers = jnp.bfloat16 if dtype == "bfloat16" else jnp.float32
    precision = "highest" if dtype == "float32" else "default"
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), numbers) for key in keys)

    @jax.jit
    def product(a, b):
        # Scaled so that a long row of products neither grows nor shrinks.
        return jnp.matmul(a, b, precision=precision) * size**-0.5

    def call():
        result = a
        for _ in range(times):
            result = product(result, b)
        jax.block_until_ready(result)

    return call, 2 * size**3 * times


def copy(size: int = 0, times: int = 0):
    """A call that reads and writes an array, and the bytes that it moves.

    Args:
        size: bytes of the array; 0: 2**28 on a CPU, 2**31 elsewhere.
        times: passes in a row; 0: 1 on a CPU, 10 elsewhere.
    """
    cpu = jax.default_backend() == "cpu"
    size, times = size or (2**28 if cpu else 2**31), times or (1 if cpu else 10)
    array = jnp.ones(size // 4)
    add = jax.jit(lambda x: x + 1.0)

    def call():
        result = array
        for _ in range(times):
            result = add(result)
        jax.block_until_ready(result)

    return call, 2 * size * times


def main():
    parser = command_line.Parser(__spec__.name, __doc__)
    parser.add_argument("--rounds", type=command_line.count, default=5)
    arguments = parser.parse_args()
    work = {dtype: matmul(dtype) for dtype in DTYPES} | {"copy": copy()}
    calls = {name: call for name, (call, _) in work.items()}
    seconds = measure.in_turn(calls, arguments.rounds)
    device = jax.devices()[0].device_kind
    rates = {
        name: {
            "best": work[name][1] / min(each),
            "median": work[name][1] / statistics.median(each),
        }
        for name, each in seconds.items()
    }
    print(f"{device}: TFLOP/s of matrix products; copy: TB/s, reading and writing")
    rows = [[n, *(value / 1e12 for value in r.values())] for n, r in rates.items()]
    measure.show(["", "best", "median"], rows)
    measure.write_json(arguments.json, {"device": device, "per second": rates})


if __name__ == "__main__":
    command_line.run(main)
