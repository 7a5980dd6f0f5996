"""A run of the toy task as a process of its own, with accidents to order.

    python -m tests.toy_run WORKDIR '{"config": {...}, "at": {"7": "kill"}, "on": 1}'

Accidents happen when the process makes the batch of a step: `kill` is SIGKILL, `term`
SIGTERM, `user` a UserError, `bug` a ValueError, `hang` a minute of silence; `full` makes
the batch not finite. `evaluating` does it at the second batch of an evaluation instead.
`waits` changes how long a process waits for the others: attributes of `coordination`.
"""

import json
import os
import pathlib
import signal
import sys
import time

from ctp_jax import cli, devices
from ctp_jax.errors import UserError
from tests import toy_data


def accident(kind):
    """Makes it happen."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif kind == "user":
        raise UserError("the disk of this host is gone")
    elif kind == "bug":
        raise ValueError("a mistake of ours")
    elif kind == "hang":
        time.sleep(60)


class Watched(toy_data.ToyPipeline):
    """Writes down which positions of the run this process has read."""

    def __init__(self, *arguments, log=None, evaluating=None, **more):
        super().__init__(*arguments, **more)
        self._log, self._evaluating = log, evaluating

    def _example(self, position, index):
        if self._log:
            with self._log.open("a") as file:
                kind = "train" if self._train else "eval"
                file.write(f"{kind} {position}\n")
        return super()._example(position, index)

    def eval_batches(self):
        for number, batch in enumerate(super().eval_batches()):
            if number == 1 and self._evaluating:
                accident(self._evaluating)
            yield batch


def main(workdir, settings, found):
    """The run."""
    devices.prepare(small=found is None)
    from ctp_jax.train import loop
    from ctp_jax.train.distributed import coordination
    from ctp_jax.train.distributed.preemption import Preemption

    coordination._HEARTBEAT = 20  # the tests wait for it where one is killed
    for name, value in settings.get("waits", {}).items():
        setattr(coordination, name, value)
    with (
        Preemption(settings.get("exit_code", 0)) as preemption,
        coordination.joined(found),
    ):
        import jax

        here = settings.get("on", 0) == jax.process_index()
        at = settings.get("at", {}) if here else {}

        def hook(step, batch):
            accident(at.get(str(step)))
            time.sleep(settings.get("pause", 0))

        def open_pipeline(config, spec, plan, train, *share):
            log = (
                pathlib.Path(settings["log"] + str(share[0]))
                if "log" in settings
                else None
            )
            evaluating = settings.get("evaluating") if here else None
            return Watched(
                config, train, *share, hook=hook, log=log, evaluating=evaluating
            )

        config = toy_data.toy_config(**settings.get("config", {}))
        loop.train(config, workdir, open_pipeline, preemption)
    if preemption.preempted:
        sys.exit(settings.get("exit_code", 0))


if __name__ == "__main__":
    cli.quiet()
    from ctp_jax.train.distributed import cluster

    flags = sys.argv[3:]
    explicit = (flags[0], int(flags[1]), int(flags[2])) if flags else (None, None, None)
    try:
        main(sys.argv[1], json.loads(sys.argv[2]), cluster.find(*explicit))
    except UserError as error:
        cli.fail(error)
