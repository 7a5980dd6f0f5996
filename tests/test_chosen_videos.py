"""A file of the user's own gives the clip that it gives when it is prepared first."""

import jax
import numpy as np
import pytest

from configs import finetune_small, vcop
from ctp_jax import chosen_videos
from ctp_jax.errors import UserError
from ctp_jax.prepare import __main__ as prepare
from ctp_jax.tasks import base
from tests.prepare import make_videos


@pytest.mark.parametrize("kind", ["recognition", "vcop"])
def test_a_file_is_read_as_a_prepared_one(tmp_path, kind):
    frames = [make_videos.picture(200, 260, shift=4 * i) for i in range(45)]
    path = tmp_path / "videos" / "mine.mp4"
    path.parent.mkdir()
    make_videos.write_video(path, frames)
    flags = [f"--videos={path.parent}", "--name=mine", f"--data_dir={tmp_path}"]
    prepare.main(["video_folder", *flags])
    config = finetune_small.get_config()
    if kind == "vcop":  # several clips, and a plan
        config = vcop.get_config("small")
        config.model.name = "tests.tiny_network"
    config.data.name, config.data.data_dir = "mine", str(tmp_path)
    config.data.eval_split, config.data.min_frames = "all", 1
    config = chosen_videos.adapt(config, 1)
    task = base.load(config)
    want = next(base.open_pipeline(config, task, False).eval_batches())
    got = chosen_videos.read_file(path, task)
    assert set(got) == set(want) - {"attempt"}
    for name, values in want.items():
        if name not in ("frames", "plan", "annotations"):
            assert got[name].dtype == values.dtype, name
    assert set(got["plan"]) == set(want["plan"])
    if kind == "vcop":
        assert got["plan"]["label"].shape == (1,)
        check_that_orders_are_explained(task, got)
        return  # whose clips are drawn at random
    np.testing.assert_array_equal(got["times"], want["times"])
    draw = jax.jit(task.draw)
    difference = np.abs(np.asarray(draw(got)) - np.asarray(draw(want)))
    # The prepared frames are compressed, those of the file are as they are.
    assert difference.mean() < 1.5 and np.percentile(difference, 99) < 4


def test_one_video_by_its_name(tmp_path):
    flags = ["--train_videos=2", "--test_videos=2", f"--data_dir={tmp_path}"]
    prepare.main(["moving_shapes", *flags])
    config = finetune_small.get_config()
    config.model.name = "tests.tiny_network"
    task = base.load(chosen_videos.adapt(config, ["up_000002"], str(tmp_path)))
    ((name, batch),) = chosen_videos.batches(task, ["up_000002"], "")
    assert name == "up_000002" and task.class_names[batch["label"][0]] == "up"


def check_that_orders_are_explained(task, batch):
    """One row of logits, as they are predicted, and maps of all three clips."""
    config = task.config
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    found = jax.jit(task.explain)(variables, batch, np.array([-1]))
    want = jax.jit(task.predict)(variables, batch)["logits"][0]
    np.testing.assert_allclose(found.logits, want, rtol=1e-5)
    assert int(found.classes[0]) == int(want.argmax())
    shape = 3, config.clip.num_frames, config.clip.size, config.clip.size
    assert found.grad_cam.shape == shape and found.guided.shape == (*shape, 3)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    task = base.load(chosen_videos.adapt(finetune_small.get_config(), 1))
    (tmp_path / "text.mp4").write_text("no video")
    for path in (tmp_path / "text.mp4", tmp_path / "none.mp4", tmp_path):
        with pytest.raises(UserError) as caught:
            chosen_videos.read_file(path, task)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_boxes_hold_where_they_are_seen():
    boxes = np.arange(1 * 1 * 3 * 2 * 4, dtype=np.float32).reshape(1, 1, 3, 2, 4)
    seen = np.array([[1, 0], [0.5, 0], [0, 0]], np.float32)[None, None]
    batch = {"times": np.zeros((1, 1, 3)), "plan": {}, "annotations": {}}
    assert chosen_videos.boxes(batch, 0).shape == (0, 3, 4)
    batch["annotations"] = {"boxes": boxes[:, :, :, 0]}  # as TFDS has them
    np.testing.assert_array_equal(chosen_videos.boxes(batch, 0), boxes[0, :, :, 0])
    batch["annotations"] = {"boxes": boxes, "visibility": seen}
    found = chosen_videos.boxes(batch, 0)
    np.testing.assert_array_equal(found[0, :2], boxes[0, 0, :2, 0])
    assert np.isnan(found[0, 2]).all() and np.isnan(found[1]).all()
    batch["plan"] = {"label": np.zeros(1)}  # the task has turned the clip, say
    assert chosen_videos.boxes(batch, 0).shape == (0, 3, 4)
