"""CoCLR's second stage: positives, sampler, sources and steps, against PyTorch and NumPy."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import coclr as coclr_config
from configs import infonce as infonce_config
from ctp_jax import config as config_lib
from ctp_jax.data import index, records, selection, tfrecord
from ctp_jax.errors import UserError
from ctp_jax.tasks import base
from ctp_jax.train import state as state_lib
from ctp_jax.train.checkpoints import export, init_from
from tests.tasks import made_clips as made

QUEUE, NEAREST = 3 * made.VIDEOS, 2


def make_task(argument="data=none", **flat):
    config = made.shrink(coclr_config.get_config(argument))
    config.batch_size = made.VIDEOS
    config.contrast.queue, config.contrast.dim = QUEUE, 8
    # So large a share moves that a wrong order shows.
    config.contrast.momentum = 0.6
    config.coclr.nearest, config.coclr.sampler = NEAREST, "random"
    config.update_from_flattened_dict(flat)
    config_lib.validate(config)
    return base.load(config)


def make_batch(task, seed=0):
    """As made, with the key's clip in the other stream: its window, other pixels."""
    batch = dict(made.make_batch(task, True, seed))
    pixels = np.random.default_rng(seed + 100).permutation(
        np.asarray(batch["frames"][:, 1:]).ravel()
    )
    for name in ("frames", "extent", "window", "flip", "choice"):
        more = batch[name][:, 1:]
        if name == "frames":
            more = jnp.asarray(pixels.reshape(more.shape))
        batch[name] = jnp.concatenate([batch[name], more], axis=1)
    shows_flow = [False, False, True]
    if task.config.data.stream == "flow":
        shows_flow = [True, True, False]
    batch["flow"] = jnp.tile(jnp.array(shows_flow), (made.VIDEOS, 1))
    batch["index"] = jnp.arange(made.VIDEOS, dtype=jnp.int32)
    return batch


# Steps ------------------------------------------------------------------------------


def torch_network(task, weights):
    """The method as the release orders it: the key network moves, then sees the keys."""
    import torch

    from tests.tasks import two_steps

    choice = task.config.coclr

    class Network(two_steps.Momentum):
        def begin(self, weights):
            super().begin(weights)
            self.keys.append(self.load(weights.state["sampler"]).eval())
            self.queue = jax.tree.map(torch.tensor, weights.state["queue"])

        def forward(self, clips, batch):
            keys, sampler = self.keys
            query = self.embed(clips[:, 0])
            key, other = keys.embed(clips[:, 1]), sampler.embed(clips[:, 2])
            source = torch.tensor(batch["index"])
            logits = [(query * key).sum(1, keepdim=True), query @ self.queue["key"].T]
            logits = torch.cat(logits, 1) / task.config.contrast.temperature
            same = source[:, None] == self.queue["source"][None]
            alike = (other @ self.queue["other"].T).masked_fill(same, -2.0)
            chosen = torch.topk(alike, choice.nearest, dim=1).indices
            mask = same.clone()
            if (self.queue["source"] != -1).all():
                mask.scatter_(1, chosen, True)
            mask = torch.cat([torch.ones(len(mask), 1, dtype=torch.bool), mask], 1)
            if choice.leave_own == 1:
                mask[mask.sum(1) != 1, 0] = False
            likely = (torch.softmax(logits, 1) * mask).sum(1)
            rows = slice(self.pointer, self.pointer + len(key))
            entered = {"key": key, "other": other, "source": source}
            entered["label"] = torch.tensor(batch["label"])
            self.queue = {name: each.clone() for name, each in self.queue.items()}
            for name, values in entered.items():
                self.queue[name][rows] = values
            self.pointer = (self.pointer + len(key)) % len(self.queue["key"])
            return -likely.log().mean()

        def after_step(self):
            self.move(self.keys[0])

        def state(self):
            return {
                "networks": {"key": self.numbers(self.keys[0])},
                "queue": {name: rows.numpy() for name, rows in self.queue.items()},
                "pointer": np.int32(self.pointer),
            }

    return Network(task, two_steps.Dense(weights.params["head"]))


@pytest.mark.parametrize(
    ("leave_own", "first_source"), [(0.0, 20), (1.0, 20), (1.0, -1)]
)
@pytest.mark.slow
def test_two_steps_are_pytorch_s(leave_own, first_source):
    """With a full queue, its own key or not; and with one that is full after a step."""
    pytest.importorskip("torch")
    from tests.tasks import two_steps

    task = make_task(**{"coclr.leave_own": leave_own, "jitter.probability": 0.0})
    batches = [make_batch(task, seed) for seed in (0, 1)]
    weights = two_steps.make_weights(task, batches[0])
    rng = np.random.default_rng(5)
    source = np.arange(20, 20 + QUEUE, dtype=np.int32)
    source[: made.VIDEOS] = first_source  # the rows that the first keys take
    source[6:9] = 2, 2, 0
    state = dict(weights.state)
    state["queue"] = {**state["queue"], "source": source}
    # Away from the key network, which starts as equal.
    state["sampler"] = jax.tree.map(
        lambda leaf: leaf * np.exp(0.3 * rng.normal(size=leaf.shape)), state["sampler"]
    )
    # And the key network from the query's, as later in a run.
    state["networks"] = jax.tree.map(
        lambda leaf: leaf * np.exp(0.1 * rng.normal(size=leaf.shape)),
        state["networks"],
    )
    weights = weights._replace(state=state)
    assert task.config.optimizer.name == "adam"
    network = torch_network(task, weights)
    two_steps.check(task, weights, network, batches, given=("_draw_other",))


def test_the_sampler_stays_as_it_is():
    task, state = started()
    batch, variables = make_batch(task), state.variables
    loss, out = jax.jit(lambda *of: task.loss(*of, 0, jax.random.key(1)))(
        variables, batch
    )
    assert np.isfinite(loss) and set(variables.params) == {"encoder", "head"}
    after = task.after_step(
        base.Variables(variables.params, out.state), out.carry, jnp.int32(0)
    )
    same = jax.tree.map(np.array_equal, after["sampler"], variables.state["sampler"])
    assert all(jax.tree.leaves(same))
    assert after["queue"]["source"][: made.VIDEOS].tolist() == [0, 1, 2, 3]


# Positives --------------------------------------------------------------------------


def unit(rng, *shape):
    found = rng.normal(size=shape)
    return np.float32(found / np.linalg.norm(found, axis=-1, keepdims=True))


def made_entries(rng, full=True):
    sizes, found = {"entries": made.VIDEOS, "queue": QUEUE}, []
    for count in sizes.values():
        rows = {"key": unit(rng, count, 8), "other": unit(rng, count, 8)}
        rows["source"] = rng.integers(0, 6, count).astype(np.int32)
        rows["label"] = rng.integers(-1, 2, count).astype(np.int32)
        found.append(rows)
    if not full:
        found[1]["source"][3] = -1
    return jax.tree.map(jnp.asarray, found)


def expected_positives(entries, queue, nearest):
    """(b, 1 + n) by loops: the own key, keys of the source, and the nearest others."""
    found = np.zeros((len(entries["key"]), 1 + len(queue["key"])), bool)
    for row in range(len(found)):
        found[row, 0] = True
        others = {}
        for column in range(len(queue["key"])):
            if queue["source"][column] == entries["source"][row]:
                found[row, 1 + column] = True
            else:
                others[column] = float(entries["other"][row] @ queue["other"][column])
        if (np.asarray(queue["source"]) >= 0).all():
            for column in sorted(others, key=others.__getitem__)[-nearest:]:
                found[row, 1 + column] = True
    return found


@pytest.mark.parametrize("full", [True, False])
def test_positives_loss_and_metrics(full):
    rng, task = np.random.default_rng(0), make_task()
    entries, queue = made_entries(rng, full)
    positives = expected_positives(entries, queue, NEAREST)
    np.testing.assert_array_equal(
        task.positives(entries, queue, jax.random.key(0)), positives
    )
    query = unit(rng, made.VIDEOS, 8)
    keys = np.concatenate([entries["key"], queue["key"]])
    logits = np.stack(
        [
            np.concatenate([[q @ keys[i]], keys[made.VIDEOS :] @ q])
            for i, q in enumerate(query)
        ]
    )
    chances = np.exp(logits.astype(np.float64) / task.config.contrast.temperature)
    chances /= chances.sum(1, keepdims=True)
    left = positives.copy()
    left[left.sum(1) > 1, 0] = False
    wanted = [-np.log((chances * mask).sum(1)).mean() for mask in (positives, left)]
    assert wanted[0] < wanted[1]
    compare = jax.jit(task.compare)
    found = [compare(query, entries, queue, jax.random.key(seed)) for seed in range(60)]
    counts = [
        sum(abs(float(loss) - value) < 1e-4 for loss, _ in found) for value in wanted
    ]
    assert sum(counts) == 60
    assert abs(counts[1] / 60 - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 60)
    metrics = found[0][1]
    hits = [mask[row.argmax()] for row, mask in zip(logits, positives, strict=True)]
    assert metrics["top1"] == np.mean(hits)
    same_source = np.asarray(entries["source"])[:, None] == queue["source"]
    nearest = positives[:, 1:] & ~same_source
    label = np.asarray(entries["label"])[:, None]
    right = nearest & (label == queue["label"]) & (label >= 0)
    assert metrics["same_class"] == pytest.approx(right.sum() / max(nearest.sum(), 1))
    assert full == bool(nearest.any())


def test_chance_is_the_loss_with_equal_logits():
    """On average over steps with and without the own key."""
    task, chances = make_task(), np.full(1 + QUEUE, 1 / (1 + QUEUE))
    expected = 0.9 * -np.log(chances[:NEAREST].sum())
    expected += 0.1 * -np.log(chances[: NEAREST + 1].sum())
    assert task.chance_loss() == pytest.approx(expected)


def made_records(names, num_frames=99):
    """A split with these videos, all of one class."""
    columns = {name: np.zeros(len(names), kind) for name, kind in index.COLUMNS.items()}
    columns["num_frames"] += np.array(num_frames, columns["num_frames"].dtype)
    return records.Records(
        features=tfrecord.Features("frames"),
        encoding="jpeg",
        class_names=("a",),
        files=(),
        file_size=np.zeros(0, np.int64),
        id_bytes=np.array([name.encode() for name in names]),
        name="made",
        split="train",
        directory="",
        **columns,
    )


def test_sources_are_those_of_the_videos_that_are_used():
    names = ["Archery/v_Archery_g01_c01", "Archery/v_Archery_g02_c01.avi"]
    names += ["Archery/v_Archery_g01_c02", "Biking/v_Biking_g01_c01"]
    names += [f"Biking/v_Biking_g{i // 3:02}_c{i % 3:02}" for i in range(6, 30)]
    groups = np.array([name.partition("_c")[0] for name in names])
    split = made_records(names)
    task = make_task("data=ucf101_flow")
    task.see_data(split, None)
    assert_same_groups(task._sources, groups)
    half = {"data.split": "train", "data.fraction": 0.5}
    task = make_task("data=ucf101_flow", **half)
    task.see_data(split, None)
    used = selection.take_fraction(split, 0.5, task.config.seed).ids
    assert len(used) == 14
    assert_same_groups(task._sources, [name.partition("_c")[0] for name in used])
    # The fraction is of what is trained on, so pictures of other videos have all of them.
    task = make_task("data=ucf101_flow", **half | {"data.split": "another"})
    task.see_data(split, None)
    assert_same_groups(task._sources, groups)
    task = make_task("data=none")
    task.see_data(split, None)
    assert_same_groups(task._sources, names)
    # And without the short ones, that is how the pipeline counts.
    short = dict(zip(names, np.arange(len(names)) % 3 == 1, strict=True))
    split = made_records(names, [20 if short[name] else 40 for name in names])
    flat = {"data.min_frames": 33, "data.skip_short": True}
    task = make_task("data=ucf101_flow", **half, **flat)
    task.see_data(split, None)
    long = [name.partition("_c")[0] for name in used if not short[name]]
    assert 0 < len(long) < len(used)
    assert_same_groups(task._sources, long)


def assert_same_groups(numbers, names):
    names = np.asarray(names)
    np.testing.assert_array_equal(numbers[:, None] == numbers, names[:, None] == names)


# Clips ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_clips_and_captions(stream):
    """Colours change where they are colours; a mirrored motion turns round."""
    task = make_task(f"data=none,stream={stream}", **{"contrast.blur": 0.0})
    spec = task.clip_spec(True)
    assert spec.num_clips == 2 and spec.other_stream == (1,)
    batch = make_batch(task)
    batch["flip"] = jnp.tile(jnp.array([[True, False, True]]), (made.VIDEOS, 1))
    batch["choice"] = jnp.ones_like(batch["choice"])  # strong
    batch["times"] = jnp.zeros((*batch["choice"].shape, made.FRAMES), jnp.int32)
    found = np.asarray(jax.jit(task.draw)(batch))
    assert found.shape[:2] == (made.VIDEOS, 3)
    for video in range(made.VIDEOS):
        for clip in range(3):
            plain = made.opencv_clip(batch, video, clip)
            if batch["flow"][video, clip] and batch["flip"][video, clip]:
                plain[..., 0] = 256 - plain[..., 0]
            error = np.abs(found[video, clip] - plain).max()
            if clip == 2 or stream == "flow":
                assert error < 0.1
    jittered = [
        np.abs(found[v, 0] - made.opencv_clip(batch, v, 0)).max() > 5
        for v in range(made.VIDEOS)
    ]
    assert any(jittered)
    overlay = task.overlay(batch)
    other = "flow" if stream == "rgb" else "RGB frames"
    assert overlay.captions[0].startswith("query strong, key strong, of one clip")
    assert overlay.clips == ("query", "key", f"the key's {other}")


# The sampler ------------------------------------------------------------------------


@functools.cache
def exported(stream="flow"):
    """A run of InfoNCE as it is exported, and its config."""
    config = made.shrink(infonce_config.get_config(f"data=none,stream={stream}"))
    config.batch_size = made.VIDEOS
    config.contrast.queue, config.contrast.dim = QUEUE, 8
    task = base.load(config)
    batch = dict(made.make_batch(task, True))
    variables = jax.jit(task.init)(jax.random.key(7), batch)
    params, stats, architecture = task.encoder(variables)
    return export.Encoder(
        params=jax.tree.map(np.asarray, params),
        batch_stats=jax.tree.map(lambda leaf: np.asarray(leaf) + 0.5, stats),
        architecture=architecture,
        head=jax.tree.map(np.asarray, task.head(variables)),
        head_task="infonce",
        provenance={"config": config_lib.as_dict(config), "steps": 9},
        path="runs/x",
    )


@functools.cache
def started():
    """A task, and its state before the first step."""
    import optax

    task = make_task(**{"coclr.sampler": "runs/x"})
    batch = make_batch(task)
    init = jax.jit(lambda rng: state_lib.initial(task, optax.sgd(0.1), rng, batch, 0.0))
    return task, init(jax.random.key(0))


def test_sampler_and_encoder_come_from_two_runs():
    (task, state), sampler = started(), exported()
    state, known, line = init_from.start_other(task, state, sampler)
    assert line.startswith("config.coclr.sampler runs/x, after 9 steps: loaded ")
    assert known == ["model_state/sampler"]
    own = exported("rgb")
    own = dataclasses.replace(
        own, params=jax.tree.map(lambda leaf: leaf + 1, own.params)
    )
    state, lines = init_from.start(task, state, own, (), known)
    assert "sampler" not in "".join(lines[1:])
    kept = state.model_state["sampler"]
    for name, found, wanted in (
        ("params", kept["params"], sampler.params),
        ("statistics", kept["batch_stats"], sampler.batch_stats),
        ("head", kept["head"], sampler.head),
        ("query", state.params["encoder"], own.params),
        ("key", state.model_state["networks"]["key"]["params"], own.params),
        ("query head", state.params["head"], own.head),
        ("key head", state.model_state["networks"]["key"]["head"], own.head),
    ):
        same = jax.tree.map(np.array_equal, found, copy.copy(wanted))
        assert all(jax.tree.leaves(same)), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream": "rgb"}, "runs/x: is of the stream 'rgb', as is this run"),
        (
            {"head_task": "", "head": None},
            "its head is of task '': needs one of infonce",
        ),
        ({"head_task": "rotation"}, "its head is of task 'rotation': needs one of"),
        ({"batch_stats": {}}, "does not fit the network"),
    ],
)
def test_another_sampler_is_refused(changes, message):
    fields = dict(changes)
    sampler = exported(fields.pop("stream", "flow"))
    with pytest.raises(UserError, match=message) as raised:
        init_from.start_other(*started(), dataclasses.replace(sampler, **fields))
    text = str(raised.value)
    assert text.startswith("config.coclr.sampler: ") and "\n" not in text


# Mistakes ---------------------------------------------------------------------------


def test_without_a_sampler():
    """Said when a run starts; a random one has to be asked for."""
    task = make_task(**{"coclr.sampler": ""})
    with pytest.raises(UserError, match="configs/infonce.py on the other stream") as it:
        init_from.read_other(task)
    assert "stream=flow" in str(it.value)
    assert init_from.read_other(make_task()) is None
    task = make_task(**{"coclr.sampler": "/nothing/here"})
    with pytest.raises(UserError, match="config.coclr.sampler: /nothing/here: no such"):
        init_from.read_other(task)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        (
            {"coclr.nearest": QUEUE + 1},
            f"needs at most config.contrast.queue = {QUEUE}",
        ),
        ({"contrast.positives": "label"}, "'label': the sampler says"),
        ({"coclr.source_of": "("}, "needs one line of text, a regular expression"),
        ({"data.stream": "flow"}, "jitter.probability = 0.8: needs 0: the colours of"),
        ({"contrast.queue": 10}, "is not divisible by config.batch_size"),
    ],
)
def test_mistakes_are_one_line(flat, message):
    with pytest.raises(UserError, match=message) as raised:
        make_task(**flat)
    assert "\n" not in str(raised.value)


def test_heads_of_other_tasks_are_told_apart():
    task = make_task()
    for name, fits in (("infonce", True), ("coclr", True), ("moco", False)):
        given = export.Encoder({}, {}, {}, {}, name, {}, "x")
        if fits:
            init_from.check_head(task, given)
        else:
            with pytest.raises(UserError, match="the head in x is of task 'moco'"):
                init_from.check_head(task, given)


# Numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "numbers"),
    [
        ("data=ucf101_flow", ("train01", 100, (80,), 2048, r"_c\d+(\.\w+)?$")),
        ("data=kinetics400_flow", ("train", 50, (40,), 16384, "")),
        ("data=mine_flow", ("train", 100, (80,), 2048, "")),
    ],
)
def test_the_authors_numbers(argument, numbers):
    config = coclr_config.get_config(argument)
    found = (config.data.split, config.epochs, tuple(config.optimizer.milestones))
    assert (*found, config.contrast.queue, config.coclr.source_of) == numbers
    assert (config.coclr.nearest, config.coclr.leave_own) == (5, 0.9)
    assert (config.contrast.temperature, config.contrast.momentum) == (0.07, 0.999)
    assert config.init_head and config.data.stream == "rgb"
    flow = coclr_config.get_config(f"{argument},stream=flow")
    assert flow.data.stream == "flow"
    assert flow.jitter.probability == flow.jitter.grey == 0
