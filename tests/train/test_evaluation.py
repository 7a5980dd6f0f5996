"""Evaluation counts each held-out video once, for any batch size and devices."""

import collections
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from ctp_jax.errors import UserError
from ctp_jax.train import evaluation
from ctp_jax.train import mesh as mesh_lib
from ctp_jax.train.distributed.preemption import Preemption
from ctp_jax.train.state import TrainState
from ctp_jax.train.watchdog import Watchdog
from tests import forks, toy_task
from tests.toy_data import EVAL_EXAMPLES, ToyPipeline, toy_config
from tests.train.recorder import LOG

TRAIN, TEST = 20, 11
# Devices, batch, what is probed.
SETTINGS = ((1, 3, "retrieval,knn"), (1, 1, ""), (2, 8, ""), (8, 8, "retrieval"))

SCRIPT = """
import json, sys
import jax
import numpy as np
from configs import common
from ctp_jax import modules
from ctp_jax.data import records, selection
from ctp_jax.tasks import base, recognition
from ctp_jax.train import evaluation
from ctp_jax.train.watchdog import Watchdog
from ctp_jax.train.state import TrainState
from ctp_jax.train.distributed.preemption import Preemption
from tests.tasks.made_clips import make_config, make_weights

found = []
for devices, batch, probed in json.loads(sys.argv[2]):
    config = make_config(**{
        "data.name": "moving_shapes", "data.data_dir": sys.argv[1],
        "data.eval_split": "test", "data.workers": 2, "data.fraction": 0.5,
        "batch_size": batch, "model.name": "tests.tiny_network",
        "probe.scales": ((48, 36),), "probe.num_clips": 2,
    })
    modules.allow_named_by(config)
    names = ["recognition", *filter(None, probed.split(","))]
    config.evaluators = common.evaluators(*names)
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices],
                         axis_types=(jax.sharding.AxisType.Auto,))
    task = recognition.Task(config)
    train = base.open_pipeline(config, task, True)
    every = evaluation.open_all(config, task, train, mesh, None)
    assert len(train.records) == 10 and len(every) == 1 + bool(probed)
    trained_on = train.records.ids.tolist()
    for each in every:
        for gallery in each.pipelines[1:]:
            assert gallery.records.ids.tolist() == trained_on
    assert selection.overlaps(train.records, [every[0].pipelines[0].records]) == []
    params, model_state = make_weights(task)
    state = TrainState(0, params, model_state, ())
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.device_put(state, everywhere)
    results = {}
    for each in every:
        results |= each.run(state, Preemption(), Watchdog(60.0, print))
    numbers, arrays = evaluation.split_results(results)
    arrays = {name: value.tolist() for name, value in arrays.items()}
    found.append(numbers | arrays)
print(json.dumps(found))
"""


def run(every, state):
    """The pass is not preempted, and the input does not stall."""
    return every.run(state, Preemption(), Watchdog(60.0, print))


@pytest.fixture(scope="module")
def found(moving_shapes):
    """Results of the recogniser and of the probe, for each of `SETTINGS`."""
    arguments = ["-c", SCRIPT, moving_shapes(TRAIN, TEST), json.dumps(SETTINGS)]
    flags = "--xla_force_host_platform_device_count=8"
    return json.loads(forks.run(arguments, {"XLA_FLAGS": flags}).splitlines()[-1])


def test_every_video_counts_once_whatever_batch_and_devices(found):
    labels = [i % 10 for i in range(TRAIN, TRAIN + TEST)]
    for results in found:
        assert results["video_index"] == list(range(TEST))
        assert results["video_label"] == labels
        confusion = np.array(results["confusion"])
        assert confusion.sum() == TEST
        expected = collections.Counter(labels)
        assert confusion.sum(axis=1).tolist() == [expected[k] for k in range(10)]
    for results in (found[0], found[-1]):
        # The gallery is what was trained on, half of the split.
        assert sorted(results["neighbour_query"]) == list(range(TEST))
        for neighbours in results["neighbours"]:
            assert sorted(neighbours) == list(range(TRAIN // 2))


def test_results_do_not_depend_on_batch_and_devices(found):
    first, *others = found
    logits = np.array(first["video_logits"])
    assert np.ptp(logits, axis=0).min() > 1e-2  # videos differ
    for other in others:
        np.testing.assert_allclose(other["video_logits"], logits, rtol=1e-3, atol=1e-4)
        for name in ("top1", "top5", "class_accuracy", "clip_top1", "eval_loss"):
            assert other[name] == pytest.approx(first[name], abs=1e-4), name
    similarity = [np.array(each["neighbour_similarity"]) for each in (first, found[-1])]
    np.testing.assert_allclose(*similarity, atol=1e-4)
    assert 0 <= first["knn_top1"] <= first["knn_top5"] <= 1
    assert first["retrieval_top1"] == found[-1]["retrieval_top1"]


class Recorded(toy_task.Task):
    """The toy task; records the calls of `see_data`."""

    def see_data(self, train, held_out):
        LOG.append(("task", "see_data", train, held_out))


def open_toy(config, spec, plan, train, *share):
    pipeline = ToyPipeline(config, train)
    pipeline.records = config.data.eval_split
    if config.data.eval_split == "train":  # the gallery
        pipeline.num_examples = config.data.eval_videos
    return pipeline


def make(task_class, evaluators=None, **flat):
    """`evaluators`: {name: (needs a gallery, split, epochs between two passes)}."""
    LOG.clear()
    config = toy_config(**flat)
    if evaluators is not None:
        config.evaluators = common.evaluators(*evaluators)
    for name, (needs_gallery, split, every) in (evaluators or {}).items():
        own = config.evaluators[name]
        own.module, own.split, own.every = "tests.train.recorder", split, every
        own.own_name, own.needs_gallery = name, needs_gallery
    task = task_class(config)
    train = ToyPipeline(config, True)
    train.whole = "whole"
    every = evaluation.open_all(config, task, train, mesh_lib.one_device(), open_toy)
    return task, every


def toy_state(task):
    batch = {"frames": jnp.zeros((1, 2, 3, 8, 8, 3))}
    params, model_state = jax.jit(task.init)(jax.random.key(0), batch)
    return TrainState(0, params, model_state, ())


def test_the_gallery_comes_first_and_for_those_who_want_it(tmp_path):
    asked = {"a": (False, "", 0.0), "b": (True, "", 0.0)}
    task, (every,) = make(Recorded, asked, **{"probe.gallery_videos": 13})
    # Before any parameters.
    assert [entry[3] for entry in LOG] == [None, "test"]
    assert [entry[:3] for entry in LOG] == [("task", "see_data", "whole")] * 2
    results = run(every, toy_state(task))
    assert results == {"a/one": 1.0, "b/one": 1.0}
    assert [entry[:2] for entry in LOG[2:4]] == [("a", "reset"), ("b", "reset")]
    kinds = list(dict.fromkeys(entry[:2] for entry in LOG[4:]))
    assert kinds == [("b", "gallery"), ("a", "videos"), ("b", "videos")]
    for kind, count in zip(kinds, (13, EVAL_EXAMPLES, EVAL_EXAMPLES), strict=True):
        seen = [index for entry in LOG if entry[:2] == kind for index in entry[2]]
        assert sorted(seen) == list(range(count))
    assert every.notes() == ["note of a", "note of b"]
    every.save(tmp_path)
    assert [(tmp_path / name / "file").read_text() for name in "ab"] == ["a", "b"]


def test_each_evaluator_has_its_split_and_its_rhythm():
    asked = {
        "a": (False, "", 0.0),
        "b": (False, "other", 0.0),
        "c": (False, "", 2.0),
        "d": (False, "test", 1.0),  # spelt out what is meant without
    }
    _, passes = make(Recorded, asked)
    assert [(list(each.evaluators), each.every) for each in passes] == [
        (["a", "d"], 1.0),
        (["b"], 1.0),
        (["c"], 2.0),
    ]
    assert [entry[3] for entry in LOG] == [None, "test", "other", "test"]


def test_an_evaluator_that_is_not_there_is_named():
    config = toy_config()
    config.evaluators = common.evaluators("retreival")
    with pytest.raises(
        UserError, match="'retreival': no such evaluator; .* knn, .*recognition, "
    ):
        evaluation.open_all(
            config,
            Recorded(config),
            ToyPipeline(config, True),
            mesh_lib.one_device(),
            open_toy,
        )


def test_an_output_that_the_task_does_not_predict_is_named(monkeypatch):
    task, (every,) = make(toy_task.Task)

    def update(self, batch, outputs):
        assert set(outputs) == {"class", "embedding"}
        outputs["logits"]

    monkeypatch.setattr(toy_task.Accuracy, "update", update)
    message = "config.evaluators.toy_task reads 'logits', .* predicts class, embedding"
    with pytest.raises(UserError, match=message):
        run(every, toy_state(task))


def test_a_second_pass_starts_afresh():
    task, (every,) = make(toy_task.Task)
    state = toy_state(task)
    assert run(every, state) == run(every, state)
    assert run(every, state)["videos"] == EVAL_EXAMPLES


def test_videos_that_are_left_out_are_said():
    def eval_batches(pipeline):
        for batch in ToyPipeline.eval_batches(pipeline):
            batch["replaced"] = np.isin(batch["index"], (3, 11)).astype(np.float32)
            batch["mask"] *= 1 - batch["replaced"]
            yield batch

    task, (every,) = make(toy_task.Task)
    every._held_out.eval_batches = functools.partial(eval_batches, every._held_out)
    for _ in range(2):  # each time counted anew
        assert run(every, toy_state(task))["videos"] == EVAL_EXAMPLES - 2
        assert every.notes() == ["left out: 2 unreadable videos"]


def test_nothing_to_look_at_is_not_evaluated():
    assert make(Recorded, {})[1] == []
    assert make(Recorded, **{"data.eval_split": ""})[1] == []
    assert LOG == [("task", "see_data", "whole", None)]


def test_numbers_are_logged_and_arrays_kept():
    numbers, arrays = evaluation.split_results(
        {
            "share": 0.5,
            "count": np.int64(3),
            "yes": True,
            "loss": jnp.float32(0.25),
            "name": "text",
            "row": [1, 2],
            "names": np.array(["a", "b"]),
            "object": {"not": "kept"},
        }
    )
    assert numbers == {"share": 0.5, "count": 3, "yes": True, "loss": 0.25}
    assert json.dumps(numbers)
    assert sorted(arrays) == ["name", "names", "row"]
    assert arrays["row"].tolist() == [1, 2]
