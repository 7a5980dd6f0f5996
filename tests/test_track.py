"""`python -m ctp_jax.track`: a box through a video of one's own, as an evaluation chains it."""

import csv

import av
import jax
import numpy as np
import pytest
from PIL import Image

from ctp_jax import config as config_lib
from ctp_jax import track, trackers
from ctp_jax.errors import UserError
from ctp_jax.own_videos import reader
from ctp_jax.tasks import ctp, tracker
from ctp_jax.train.checkpoints import export
from tests import made_sequences
from tests.made_sequences import FRAMES, HEIGHT, SIZE, WIDTH
from tests.own_videos import made

NUMBER, COUNT = 5, 13  # the longest video


@pytest.fixture(scope="module")
def network():
    config = made_sequences.make_config()
    task = ctp.Task(config)
    return config, task, made_sequences.make_variables(task)


def write(place, network, head=True, config=True):
    """An exported encoder."""
    settings, task, variables = network
    provenance = {"config": config_lib.as_dict(settings)} if config else {}
    made.write_encoder(place, task, variables, provenance, head)
    return str(place)


@pytest.fixture(scope="module")
def run(network, tmp_path_factory):
    return write(tmp_path_factory.mktemp("run") / "encoder", network)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of PNG frames."""
    place = tmp_path_factory.mktemp("frames")
    for number, frame in enumerate(made_sequences.make_video(NUMBER)[0]):
        Image.fromarray(frame).save(place / f"{number + 1:05}.png")
    return place


def start(monkeypatch, capsys, *arguments, **flags):
    """What the command prints."""
    for flag in (track.BOX, track.INIT_FROM, track.OUT, track.TRACKER):
        monkeypatch.setattr(track.FLAGS[flag.name], "value", flags.pop(flag.name, ""))
    monkeypatch.setattr(track.FLAGS["start"], "value", flags.pop("start", 0))
    assert not flags
    track.FLAGS.mark_as_parsed()
    track.main([str(each) for each in arguments])
    return capsys.readouterr().out


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def evaluated(network, frames, box):
    """The chain as `Tracker.predict` makes it, in pixels of the frames."""
    config, task, variables = network
    view = tracker.Tracker(config, task)
    carried, found = view.first_carry(1), []
    step = jax.jit(view.predict)
    for which, start in enumerate(range(0, max(len(frames) - 1, 1), FRAMES - 1)):
        times = np.minimum(start + np.arange(FRAMES), len(frames) - 1)
        boxes = np.tile(np.float32(box), (1, 1, FRAMES, 1, 1))
        batch = {
            "frames": frames[times][None, None],
            "window": np.array([[[0, 0, HEIGHT, WIDTH]]], np.float32),
            "extent": np.array([[[HEIGHT, WIDTH]]], np.float32),
            "flip": np.zeros((1, 1), bool),
            "choice": np.array([[which]], np.int32),
            "annotations": {"boxes": boxes * SIZE / np.tile([WIDTH, HEIGHT], 2)},
        }
        outputs = step(variables, {**batch, **carried})
        carried = {"carried": outputs["carried"]}
        found += np.asarray(
            outputs["chained"][0, 0, start > 0 : len(frames) - start]
        ).tolist()
    return np.array(found) * np.tile([WIDTH, HEIGHT], 2)


@pytest.mark.parametrize("first", [0, 4, COUNT - 2])
def test_the_chain_is_that_of_an_evaluation(
    first, network, run, folder, tmp_path, monkeypatch, capsys
):
    frames, boxes, _ = made_sequences.make_video(NUMBER)
    box = boxes[first, 0]
    text = ",".join(map(str, (*box[:2], *(box[2:] - box[:2]))))
    said = start(
        monkeypatch,
        capsys,
        folder,
        box=text,
        init_from=run,
        out=str(tmp_path),
        start=first,
    )
    assert said.split() == [str(tmp_path / "track.csv"), str(tmp_path / "track.mp4")]
    rows = rows_of(tmp_path / "track.csv")
    assert [int(row["frame"]) for row in rows] == list(range(first, COUNT))
    assert [float(row["time"]) for row in rows] == [i / 10 for i in range(first, COUNT)]
    low = np.array([[float(row[k]) for k in "xy"] for row in rows])
    sides = np.array([[float(row[k]) for k in "wh"] for row in rows])
    expected = evaluated(network, frames[first:], box)
    found = np.concatenate([low, low + sides], axis=1)
    np.testing.assert_allclose(found[0], box, atol=0.01)
    np.testing.assert_allclose(found[1:], expected[1:], atol=0.02)
    assert np.abs(found[-1] - found[0]).max() > 0.1
    with av.open(str(tmp_path / "track.mp4")) as container:
        images = [
            frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)
        ]
        assert len(images) == len(rows) and images[0].shape == (HEIGHT, WIDTH, 3)
        assert container.streams.video[0].codec.name == "h264"
    # The first colour of boxes, yellow, stands where the first box does.
    middle = int((box[1] + box[3]) / 2)
    edge = images[0][middle, int(box[0]) - 1 : int(box[0]) + 2].astype(int)
    assert (edge[:, 2] < edge[:, 0]).any()


def test_a_file_and_another_tracker_beside_it(run, tmp_path, monkeypatch, capsys):
    frames, boxes, _ = made_sequences.make_video(NUMBER)
    frames = frames.repeat(2, 1).repeat(2, 2)
    with av.open(str(tmp_path / "own.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 2 * WIDTH, 2 * HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    box = 2 * boxes[0, 0]
    text = ",".join(map(str, (*box[:2], *(box[2:] - box[:2]))))
    out = tmp_path / "new" / "folder"
    start(
        monkeypatch,
        capsys,
        tmp_path / "own.avi",
        box=text,
        init_from=run,
        out=str(out),
        tracker="kcf",
    )
    rows = rows_of(out / "track.csv")
    assert len(rows) == COUNT and float(rows[5]["time"]) == pytest.approx(
        0.2, abs=0.001
    )
    found = [[float(row[f"kcf_{k}"]) for k in "xywh"] for row in rows]
    shown = reader.read_frames(tmp_path / "own.avi", 0, 1.0)
    kcf = trackers.follow([frame.image for frame in shown], box)[0]
    expected = np.concatenate([kcf[:, :2], kcf[:, 2:] - kcf[:, :2]], axis=1)
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert np.abs(expected[-1] - expected[0]).max() > 4


def test_a_box_that_opencv_cannot_follow_is_said(
    folder, run, tmp_path, monkeypatch, capsys
):
    flags = {"init_from": run, "out": str(tmp_path / "out"), "tracker": "kcf"}
    said = start(monkeypatch, capsys, folder, box="10,10,3,9", start=2, **flags)
    why = "this box, which has less than 4 pixels a side inside the frame"
    assert f"note: kcf cannot start from {why}: its own stays\n" in said


def test_windows_hold_few_frames():
    frames = [reader.Frame(i, i / 10, np.zeros((2, 2, 3), np.uint8)) for i in range(8)]
    for count, expected in (
        (1, [[0]]),
        (4, [[0, 1, 2, 3]]),
        (5, [[0, 1, 2, 3], [3, 4]]),
        (7, [[0, 1, 2, 3], [3, 4, 5, 6]]),
        (8, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]]),
    ):
        found = track.windows(iter(frames[:count]), 4)
        assert [[frame.number for frame in window] for window in found] == expected


@pytest.mark.parametrize(
    "box, message",
    [
        ("1,2,3", "--box=1,2,3: needs four numbers, x,y,w,h"),
        ("1,2,x,4", "needs four numbers"),
        ("1,2,nan,4", "needs finite numbers"),
        ("1,2,0,4", "needs at least a pixel of width and height"),
        ("70,2,5,5", r"from 70,2 to 75,7, which is outside the frame of 64x48 pixels"),
        ("-9,2,5,5", "outside the frame"),
    ],
)
def test_wrong_boxes_are_one_line(
    box, message, run, folder, tmp_path, monkeypatch, capsys
):
    with pytest.raises(UserError, match=message):
        start(monkeypatch, capsys, folder, box=box, init_from=run, out=str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(10, 40), (40, 1)])
def test_frames_that_cannot_be_written_are_one_line(
    size, run, tmp_path, monkeypatch, capsys
):
    Image.new("RGB", size).save(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"x\d+ pixels: needs sides of 16 to 8192"):
        flags = {"box": "0,0,8,1", "init_from": run, "out": str(tmp_path / "out")}
        start(monkeypatch, capsys, tmp_path, **flags)


def test_corners_by_mistake_are_said(capsys):
    track.check_box(track.parse_box("30,20,20,20"), WIDTH, HEIGHT)
    assert capsys.readouterr().out == ""
    track.check_box(track.parse_box("30,20,50,40"), WIDTH, HEIGHT)
    said = (
        "leaves the frame of 64x48 pixels; if x1,y1,x2,y2 were given: --box=30,20,20,20"
    )
    assert said in capsys.readouterr().out
    for box in ("50,20,30,40", "-20,10,30,40"):
        track.check_box(track.parse_box(box), WIDTH, HEIGHT)
        assert capsys.readouterr().out.endswith("leaves the frame of 64x48 pixels\n")


def test_what_cannot_track_is_one_line(network, folder, tmp_path, monkeypatch, capsys):
    flags = {"box": "1,2,9,9", "out": str(tmp_path / "out")}
    bare = write(tmp_path / "bare", network, head=False)
    with pytest.raises(UserError, match="has no head, and only a head of task ctp"):
        start(monkeypatch, capsys, folder, init_from=bare, **flags)
    with pytest.raises(UserError, match="--init_from: .*no such folder"):
        start(monkeypatch, capsys, folder, init_from=str(tmp_path / "none"), **flags)
    with pytest.raises(UserError, match="--box is missing"):
        start(monkeypatch, capsys, folder, init_from=bare, out="x")
    with pytest.raises(UserError, match="no frame in the folder"):
        start(monkeypatch, capsys, tmp_path, init_from=bare, **flags)
    with pytest.raises(UserError, match="--start=13: .* has 13 frames, from 0"):
        start(monkeypatch, capsys, folder, init_from=bare, start=13, **flags)
    assert not (tmp_path / "out").exists()


def test_a_head_without_a_config_says_its_own_shape(network, tmp_path):
    encoder = export.load_encoder(write(tmp_path / "bare", network, config=False))
    found, config = track._config_of(encoder), network[0]
    assert found.clip.num_frames == FRAMES
    for name in ("channels", "roi_size"):
        assert found.head[name] == config.head[name]
    ctp.Task(found)


def test_a_video_that_breaks_off_is_tracked_as_far_as_it_goes(folder, tmp_path, capsys):
    for path in sorted(folder.iterdir())[:6]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "00005.png").write_bytes(b"no image")
    frames = list(reader.read_frames(tmp_path, 1, 10.0))
    assert [frame.number for frame in frames] == [1, 2, 3]
    assert "it is tracked up to frame 3" in capsys.readouterr().out
