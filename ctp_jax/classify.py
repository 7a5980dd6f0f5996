"""Classes of videos of your own: `python -m ctp_jax.classify VIDEO... --init_from=RUN`."""

import contextlib
import csv
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ctp_jax import cli, devices, formatting, terminal
from ctp_jax.data.batch import Batch, ClipSpec
from ctp_jax.errors import UserError, placed, refusals
from ctp_jax.flags import Flags
from ctp_jax.own_videos import command_line, inference
from ctp_jax.storage import files

FLAGS = Flags()
INPUT = command_line.define_flags(FLAGS)
OUT = FLAGS.string("out", "", "CSV file to write; empty: standard output.")
TOP = FLAGS.integer("top", 5, "Classes of each video; 0: all.", lower_bound=0)
cli.define_allow_code(FLAGS)


class Classifier(NamedTuple):
    """A recogniser of a run.

    Attributes:
        clip_spec: the clips that its evaluation sees.
        logits: of batches of one clip a row, (b, k).
        class_names: k of them.
    """

    clip_spec: ClipSpec
    logits: Callable[[Batch], Any]
    class_names: Sequence[str]


def main(arguments):
    """Says which classes of a finetuned network videos show.

    python -m ctp_jax.classify VIDEO_OR_FOLDER... --init_from=RUN [--top=5]

    Writes CSV, a line for each video and class: video, rank, class, probability. They are
    those of the run's evaluation. Files that cannot be read are named.
    """
    init_from = INPUT.init_from.value
    if not init_from:
        raise UserError("--init_from is missing: name the run of a classifier")
    videos = command_line.find_videos(arguments)
    out = files.absolute(OUT.value) if OUT.value else None
    print(
        f"classify: {formatting.count(len(videos), 'video')}, loading the network",
        file=sys.stderr,
    )
    devices.start()
    classifier = load(init_from)
    results = inference.run(
        videos,
        classifier.clip_spec,
        classifier.logits,
        batch_size=INPUT.batch_size.value,
        threads=INPUT.workers.value,
    )
    results = terminal.progress(results, "classify", len(videos), unit="videos")
    names = [os.fspath(video) for video in videos]
    with contextlib.ExitStack() as stack:
        file: Any = sys.stdout
        if out:
            stack.enter_context(refusals(out))
            new = stack.enter_context(files.replacing(out))
            file = stack.enter_context(new.open("w", newline="", encoding="utf-8"))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("video", "rank", "class", "probability"))
        read = 0
        for each in inference.in_order(results):
            if each.error:
                command_line.say_bad(names[each.index], each.error)
                continue
            read += 1
            for rank, (name, chance) in enumerate(likely(each.rows, classifier), 1):
                writer.writerow((names[each.index], rank, name, f"{chance:.4f}"))
            file.flush()
        if not read:
            raise UserError(
                f"{formatting.count(len(videos), 'video')}: none can be read"
            )


def likely(logits: np.ndarray, classifier: Classifier) -> list[tuple[str, float]]:
    """The likeliest classes of a video and their probabilities, as evaluations have them.

    Args:
        logits: of its clips, (n, k).
        classifier: whose they are.
    """
    from ctp_jax.evaluators.recognition import log_softmax, ranking

    mean = np.asarray(logits, np.float32).mean(axis=0)
    chances = np.exp(log_softmax(mean))
    order = ranking(mean)[: TOP.value or None]
    return [(classifier.class_names[int(i)], float(chances[i])) for i in order]


def load(init_from: str) -> Classifier:
    """The classifier of a run; `UserError` where there is none."""
    import jax

    from ctp_jax.encoder import config_of
    from ctp_jax.tasks import base, recognition
    from ctp_jax.train.checkpoints import init_from as reading

    with placed("--init_from"):
        stored = reading.read(init_from)
    config = config_of(stored)
    command_line.check_rgb(config, init_from)
    task, head = base.load(config), stored.head
    if head is None or not isinstance(task, recognition.Task):
        what = f"a head of task {stored.head_task}" if stored.head_task else "no head"
        raise UserError(
            f"--init_from={init_from}: has {what}, and only one of task recognition "
            "knows classes: name a run of configs/finetune_ucf.py, for example"
        )
    count = head["classifier"]["bias"].size
    names = stored.provenance.get("class_names") or map(str, range(count))
    task.class_names = tuple(names)
    variables = jax.device_put(
        base.Variables(
            {"encoder": stored.params, "head": head},
            {"batch_stats": {"encoder": stored.batch_stats}},
        )
    )
    predict = jax.jit(lambda variables, batch: task.predict(variables, batch)["logits"])
    return Classifier(
        task.clip_spec(False),
        lambda batch: predict(variables, batch)[:, 0],
        task.class_names,
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
