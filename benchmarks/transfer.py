"""Whether the transfer of the next batch runs while the device works on this one.

    python -m benchmarks.transfer

Four ways, timed in turn, to take the same steps on one device:

    kept        one batch that stays on the device
    fed         batches from the host's memory, as the training loop feeds them: the
                next is sent while the step runs, never more than one step ahead
    one by one  sends a batch, waits, takes a step, waits
    transfer    sends batches and takes no step

If transfers are hidden, fed takes as long as kept; if not, as long as one by one.
"""

import statistics

import jax

from benchmarks import command_line, measure, pretraining
from ctp_jax.models import resnet3d
from ctp_jax.train import mesh as mesh_lib


def ways(running, batches, steps):
    """The four as calls."""
    mesh = mesh_lib.one_device()
    step = running.compile("step")

    def take(batch):
        running.state, metrics = step(running.state, batch)
        return metrics

    def kept():
        for _ in range(steps):
            metrics = take(running.batch)
        jax.block_until_ready(metrics)

    def fed():
        before = None
        for number in range(steps):
            metrics = take(mesh_lib.put(batches[number % len(batches)], mesh))
            jax.block_until_ready(before)
            before = metrics
        jax.block_until_ready(before)

    def one_by_one():
        for number in range(steps):
            batch = mesh_lib.put(batches[number % len(batches)], mesh)
            jax.block_until_ready(take(jax.block_until_ready(batch)))

    def transfer():
        for number in range(steps):
            sent = mesh_lib.put(batches[number % len(batches)], mesh)
            jax.block_until_ready(sent)

    return {"kept": kept, "fed": fed, "one by one": one_by_one, "transfer": transfer}


def main():
    cpu = jax.default_backend() == "cpu"
    parser = command_line.Parser(__spec__.name, __doc__)
    add = parser.add_argument
    add("--model", default="r3d18", choices=resnet3d.NAMES)
    add("--batch", type=command_line.count, default=2 if cpu else 32)
    add("--width", type=command_line.positive, default=1.0, help="of the network")
    add(
        "--steps",
        type=command_line.count,
        default=2 if cpu else 20,
        help="in a timed call",
    )
    add("--rounds", type=command_line.count, default=5)
    arguments = parser.parse_args()
    config = pretraining.make_config(
        arguments.model, arguments.batch, width=arguments.width
    )
    batches = [pretraining.make_batch(config, seed=seed) for seed in range(2)]
    running = pretraining.Running(config, batches[0])
    seconds = measure.in_turn(ways(running, batches, arguments.steps), arguments.rounds)
    medians = {
        name: statistics.median(each) / arguments.steps
        for name, each in seconds.items()
    }
    hidden = 1 - (medians["fed"] - medians["kept"]) / medians["transfer"]
    device = jax.devices()[0].device_kind
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(batches[0]))
    print(
        f"{device}: {arguments.model}, batches of {arguments.batch}, {size / 1e6:.3g} MB"
    )
    measure.show(
        ("", "ms a step", "clips/s"),
        [(n, 1e3 * value, arguments.batch / value) for n, value in medians.items()],
    )
    print(f"of the transfer {100 * hidden:.0f} % is hidden (100 %: costs nothing)")
    measure.write_json(
        arguments.json,
        {
            "device": device,
            "arguments": vars(arguments),
            "bytes": size,
            "seconds a step": medians,
            "fed / kept": measure.ratios(seconds["fed"], seconds["kept"]),
            "hidden": hidden,
        },
    )


if __name__ == "__main__":
    command_line.run(main)
