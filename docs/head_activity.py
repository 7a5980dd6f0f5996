"""How much of the head of Catch-the-Patch responds, at the start and in a run.

    python docs/head_activity.py runs/full

Prints for 8 training clips which share of the hidden layer's outputs is above 0, and which
share of its units responds to any of their boxes. A unit that never does learns nothing.
"""

import jax

from ctp_jax import cli, visualize
from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from ctp_jax.train.checkpoints import restore


def activity(task, variables, batch):
    """Shares, both (), of outputs above 0, and of units with one in a batch."""
    clips = task.draw(batch)[:, 0]
    features, _ = task.features(variables, clips, train=True)
    _, seen = task._head.apply(
        {"params": variables.params["head"]},
        *(features, task.targets(batch).query, clips.shape[1]),
        capture_intermediates=lambda module, _: module.name == "dense1",
    )
    (hidden,) = seen["intermediates"]["dense1"]["__call__"]
    above = (hidden > 0).reshape(-1, hidden.shape[-1])
    return above.mean(), above.any(0).mean()


def main(arguments):
    if len(arguments) != 1:
        raise UserError("name the folder of one run: python docs/head_activity.py RUN")
    (workdir,) = arguments
    config = visualize.config_of_run(workdir)
    if config.task != "ctp":
        raise UserError(
            f"{workdir}: config.task = {config.task!r}: needs a run of 'ctp'"
        )
    config.batch_size = 8
    task = base.load(config)
    source = base.open_pipeline(config, task, True)
    task.see_data(source.whole, None)
    batch = next(iter(source.train_batches()))
    state, step = restore.newest(config, task, workdir, batch)
    start = task.init(jax.random.key(config.seed), batch)
    for when, variables in ((0, start), (step, state.variables)):
        outputs, units = jax.jit(lambda v: activity(task, v, batch))(variables)
        print(f"step {when}: {outputs:.3f} of outputs, {units:.3f} of units")


if __name__ == "__main__":
    cli.run(main)
