"""Kills a run again and again, and compares what comes out with one left in peace.

    python -m benchmarks.stress [--kills 20] [--steps 400] [--processes 1] [--devices 1]

The run is the toy task of the tests: several clips per video, BatchNorm, a momentum
encoder, a queue, evaluations; it saves after every step, so that many kills fall into a
save. Most are kill -9, some SIGTERM; some come while Python is still importing. Of
several processes a random one is killed, or all are.

Prints how often it was killed, and when; ends with 1 unless parameters, statistics,
optimiser and every logged number are bit for bit those of the run left in peace.
"""

import argparse
import collections
import pathlib
import random
import re
import signal
import statistics
import sys
import tempfile
import threading
import time

from benchmarks import command_line
from tests.train.distributed import toy_processes as toy

RUN = {"checkpoint_every": 0.25, "eval_every": 5.0}  # epochs of four steps
PAUSE = 0.02  # seconds a batch, or a run would be over before it is killed twice


class Attempt:
    """One start of the run, watched until it ends."""

    def __init__(self, workdir, arguments):
        self.began = time.perf_counter()
        self.first_step: float | None = None
        self.text = ""
        self.stepping = threading.Event()
        self.processes = toy.start(
            workdir,
            arguments.processes,
            arguments.devices,
            config={**RUN, "steps": arguments.steps},
            pause=PAUSE,
        )
        for process in self.processes:
            threading.Thread(target=self._read, args=[process], daemon=True).start()

    def _read(self, process):
        for line in process.stdout:
            self.text += line
            if re.match(r"step +\d+/|eval at", line) and self.first_step is None:
                self.first_step = time.perf_counter() - self.began
                self.stepping.set()
        self.stepping.set()  # or it ended before

    def kill(self, rng):
        """Kills it at a random moment; returns what was done, None if it was over."""
        if rng.random() < 0.15:
            moment = "starting"
            time.sleep(rng.uniform(0, 3))
        else:
            moment = "stepping"
            self.stepping.wait()
            time.sleep(rng.uniform(0, 1))
        number = signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL
        victims = self.processes
        # While they meet, those that are left would wait for minutes.
        if len(victims) > 1 and moment != "starting" and rng.random() < 0.5:
            victims = [rng.choice(victims)]
        alive = [process for process in victims if process.poll() is None]
        if not alive:
            return None
        for process in alive:
            process.send_signal(number)
        self.wait()
        return f"{number.name} while {moment}"

    def wait(self):
        """Returns the exit codes."""
        return [process.wait(timeout=300) for process in self.processes]


def parse(argv):
    """The flags."""
    parser = argparse.ArgumentParser("python -m benchmarks.stress")
    parser.add_argument(
        "--kills", type=command_line.count, default=20, help="at least so many"
    )
    parser.add_argument(
        "--steps", type=command_line.count, default=400, help="of the run"
    )
    parser.add_argument("--processes", type=command_line.count, default=1)
    parser.add_argument(
        "--devices", type=command_line.count, default=1, help="of each process"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv=None):
    """Returns the exit code."""
    arguments = parse(argv)
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        peace, stress = pathlib.Path(folder, "peace"), pathlib.Path(folder, "stress")
        codes = Attempt(peace, arguments).wait()
        if any(codes):
            print(f"the run left in peace ended with {codes}")
            return 1
        counts, restarts, resumed, unfinished = collections.Counter(), [], [], 0
        while True:
            attempt = Attempt(stress, arguments)
            kind = attempt.kill(rng) if counts.total() < arguments.kills else None
            codes = attempt.wait()
            if attempt.first_step is not None:
                restarts.append(attempt.first_step)
            resumed += re.findall(
                r"going on from the checkpoint of step (\d+)", attempt.text
            )
            cut = list(stress.glob("checkpoints/*.writing"))
            unfinished += bool(cut)
            if kind is not None:
                counts[kind] += 1
                print(
                    f"{counts.total():3} {kind}, {len(cut)} half-written step",
                    flush=True,
                )
            elif any(codes):
                print(attempt.text, f"the run ended with {codes}", sep="\n")
                return 1
            else:
                break
        killed = counts.total()
        for kind, count in sorted(counts.items()):
            print(f"{kind:24} {count:4}")
        print(f"in the middle of a save  {unfinished:4}")
        print(f"steps it went on from: {', '.join(resumed)}")
        print(
            f"start to the first line of a step: median {statistics.median(restarts):.1f} "
            f"s of {len(restarts)}"
        )
        if killed < arguments.kills:
            print(f"finished after {killed} kills: too few; more --steps")
            return 1
        try:
            toy.assert_same_run(peace, stress)
        except AssertionError as error:
            print(f"NOT the same run: {error}")
            return 1
    print(f"killed {killed} times: bit for bit the run that was left in peace")
    return 0


if __name__ == "__main__":
    command_line.run(lambda: sys.exit(main()))
