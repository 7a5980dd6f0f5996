"""A pipeline without files, a pure function of (seed, step), and a config for it."""

import numpy as np
from ml_collections import ConfigDict

from configs import common

SIZE, FRAMES, CLIPS = 8, 3, 2
EVAL_EXAMPLES = 21  # no multiple of a batch


def toy_config(**fields) -> ConfigDict:
    """The pretraining config with the toy in it; `fields` are flat names."""
    config = common.pretrain(
        "toy", split="train", eval_split="test", epochs=3, milestones=(1, 2)
    )
    config.task = "tests.toy_task"
    config.evaluators = common.evaluators("toy_task")
    config.evaluators.toy_task.module = "tests.toy_task"
    config.model = ConfigDict({"width": 8})
    config.batch_size = 8
    config.steps = 12
    config.optimizer.learning_rate = 0.1
    config.log_every = 5
    config.eval_every = 1.0
    config.checkpoint_every = 1.0
    config.update_from_flattened_dict(fields)
    return config


class ToyPipeline:
    """Videos whose brightness says how fast a square moves; boxes follow the flip."""

    class_names = ("slow", "middle", "fast")

    def __init__(self, config, train, process_index=0, process_count=1, hook=None):
        self.num_examples = 32 if train else EVAL_EXAMPLES
        self._config, self._train, self._hook = config, train, hook
        self._share = config.batch_size // process_count
        self._first = process_index * self._share

    def _example(self, position, index):
        rng = np.random.default_rng((self._config.seed, int(self._train), position))
        speed = index % 3
        frames = rng.integers(0, 40, (CLIPS, FRAMES, SIZE, SIZE, 3), np.uint8)
        frames += np.uint8(60 * speed)
        left = rng.uniform(0, 4, (CLIPS, 1)) + np.arange(FRAMES) * 0.5 * speed
        flip = rng.random(CLIPS) < 0.5
        left = np.where(flip[:, None], SIZE - left - 2, left)
        boxes = np.stack([left, left * 0 + 3, left + 2, left * 0 + 5], axis=-1)
        return {
            "frames": frames,
            "extent": np.full((CLIPS, 2), SIZE, np.float32),
            "window": np.tile(np.float32([0, 0, SIZE, SIZE]), (CLIPS, 1)),
            "flip": flip,
            "times": np.tile(np.arange(FRAMES, dtype=np.int32), (CLIPS, 1)),
            "label": np.int32(speed),
            "index": np.int32(index),
            "mask": np.float32(1),
            "choice": np.zeros(CLIPS, np.int32),
            "annotations": {"boxes": boxes.astype(np.float32)},
            "plan": {"speed": np.int32(speed), "poison": np.int32(0)},
        }

    def _batch(self, examples):
        def stack(*values):
            if isinstance(values[0], dict):
                return {k: stack(*(v[k] for v in values)) for k in values[0]}
            return np.stack(values)

        return stack(*examples)

    def train_batches(self, start_step):
        step = start_step
        while True:
            first = step * self._config.batch_size + self._first
            positions = range(first, first + self._share)
            batch = self._batch(
                [self._example(p, p * 7 % self.num_examples) for p in positions]
            )
            if self._hook is not None:
                self._hook(step, batch)
            yield batch
            step += 1

    def eval_batches(self):
        for start in range(0, self.num_examples, self._config.batch_size):
            examples = []
            for row in range(self._share):
                index = start + self._first + row
                example = self._example(index, index)
                example["mask"] = np.float32(index < self.num_examples)
                examples.append(example)
            yield self._batch(examples)


def opener(hook=None):
    """An `open_pipeline`; `hook(step, batch)` sees each training batch made."""

    def open_pipeline(config, spec, plan, train, process_index, process_count):
        return ToyPipeline(config, train, process_index, process_count, hook)

    return open_pipeline
