#!/usr/bin/env python3
"""Stands in for Python where a launcher would start a run: writes down how it was
started and which signals came, and ends as ordered.

$ENDS has an order per process, separated by commas: `3` ends with 3 at once, `3@0.5`
after so many seconds, `75!` half a second after the first signal, `hang` never.
"""

import json
import os
import pathlib
import signal
import sys
import time

if sys.argv[1] == "-c":
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])

flags = dict(argument.partition("=")[::2] for argument in sys.argv[3:])
index = int(flags.get("--process_index", os.environ.get("SLURM_PROCID", "0")))
record = pathlib.Path(os.environ["RECORD"], f"{index}.json")
signals = []


def write():
    names = ("SLURM_", "XLA_PYTHON", "JAX_PLATFORMS", "SRUN_", "GLIBC_")
    environ = {k: v for k, v in os.environ.items() if k.startswith(names)}
    about = {"argv": sys.argv[1:], "environ": environ, "signals": signals}
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps(about))
    temporary.rename(record)


def come(number, frame):
    signals.append(signal.Signals(number).name)
    write()


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, come)
write()
os.write(1, f"line of {index}\n".encode())  # at once, or lines would mix
order = os.environ["ENDS"].split(",")[index]
code, _, seconds = order.rstrip("!").partition("@")
if order == "hang":
    time.sleep(600)
if order.endswith("!"):
    while not signals:
        time.sleep(0.01)
    seconds = 0.5
time.sleep(float(seconds or 0))
sys.exit(int(code))
