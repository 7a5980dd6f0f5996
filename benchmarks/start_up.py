"""Seconds from the command to the first step of a run that goes on.

    python -m benchmarks.restart [--config configs/demo.py] [--repeats 3] [--json FILE]

A run on the built-in data is stopped after two steps. Then the same command is given
again and again, in turn with an empty compilation cache (cold) and with one that holds
its programs (warm); each goes on from the newest checkpoint for two steps, no evaluation.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time


def parse(argv):
    """The flags."""
    parser = argparse.ArgumentParser("python -m benchmarks.restart")
    parser.add_argument("--config", default="configs/demo.py")
    parser.add_argument("--batch_size", type=int, default=0, help="0: the config's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", default="", help="write the figures there, too")
    return parser.parse_args(argv)


def run(command, cache):
    """Seconds until the first line of a step, of a run that ends by itself."""
    environ = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds, output = None, []
    for line in process.stdout:
        output.append(line)
        if line.startswith("step ") and seconds is None:
            seconds = time.perf_counter() - began
    if process.wait() or seconds is None:
        sys.exit("".join(output))
    return seconds


def main(argv=None):
    """Prints the table."""
    arguments = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prepare = [sys.executable, "-m", "ctp_jax.prepare", "moving_shapes"]
        subprocess.run([*prepare, f"--data_dir={folder}"], check=True)
        steps = 0

        def command():
            nonlocal steps
            steps += 2
            flags = {
                "": arguments.config,
                ".data.name": "moving_shapes",
                ".data.data_dir": folder,
                ".data.split": "train",
                ".data.eval_split": "",
                ".log_every": 1,
                ".steps": steps,
            }
            if arguments.batch_size:
                flags[".batch_size"] = arguments.batch_size
            return [
                *(sys.executable, "-m", "ctp_jax.main", f"--workdir={folder / 'run'}"),
                *(f"--config{name}={value}" for name, value in flags.items()),
            ]

        found = {"new run, cold": [run(command(), folder / "cache")]}
        found |= {"going on, cold": [], "going on, warm": []}
        for repeat in range(arguments.repeats):
            cold = run(command(), folder / f"cold{repeat}")
            found["going on, cold"].append(cold)
            found["going on, warm"].append(run(command(), folder / "cache"))
    for name, seconds in found.items():
        each = ", ".join(f"{value:.1f}" for value in seconds)
        print(f"{name:16} {statistics.median(seconds):6.1f} s  ({each})")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
