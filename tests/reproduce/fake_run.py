"""Stands in for `ctp_jax.main`: `python fake_run.py --workdir=DIR ...`.

A run takes $STEPS steps of $PAUSE seconds, writes what a run writes, and goes on after its
last step. $CALLS is a file that gets a line for each start and end. A run whose command
contains $FAILS fails, with the line $FAILS_WITH and $FAILS_CODE. Of signals, the first
ends it after the step; a second SIGTERM, at once. It imports nothing, to start quickly.
"""

import json
import os
import pathlib
import signal
import sys
import time

RESULTS = {"top1": 0.5, "knn_top1": 0.25, "retrieval_top1": 0.125, "iou": 0.75}


def note(*words):
    with open(os.environ["CALLS"], "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def main(arguments):
    (workdir,) = [a.partition("=")[2] for a in arguments if a.startswith("--workdir=")]
    workdir = pathlib.Path(workdir)
    metrics = workdir / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    note("start", workdir.name, done, os.getpid())
    print("note: a run that is not real,\n    and says so")
    if os.environ.get("FAILS", "no such run") in " ".join(arguments):
        print(os.environ.get("FAILS_WITH", "error: no good"))
        sys.exit(int(os.environ.get("FAILS_CODE", "2")))
    stopping = []

    def stop(number, frame):
        stopping.append(number)
        ignored = number == signal.SIGHUP
        signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    total = int(os.environ.get("STEPS", "2"))
    with metrics.open("a") as file:
        for step in range(done + 1, total + 1):
            time.sleep(float(os.environ.get("PAUSE", "0")))
            line = {"kind": "train", "step": step, "loss": 1 / step}
            file.write(json.dumps(line) + "\n")
            file.flush()
            if stopping:
                note("saved", workdir.name, step)
                sys.exit(75)
        file.write(json.dumps({"kind": "eval", "step": total, **RESULTS}) + "\n")
    (workdir / "encoder").mkdir()
    (workdir / "encoder" / "encoder.json").write_text("{}")
    note("end", workdir.name, total)


if __name__ == "__main__":
    main(sys.argv[1:])
