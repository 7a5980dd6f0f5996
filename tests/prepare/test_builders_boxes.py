"""Videos and folders of frames with files of boxes: from there to drawn clips."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs import common
from ctp_jax.data import reading, records
from ctp_jax.data.batch import ClipSpec
from ctp_jax.errors import UserError
from ctp_jax.prepare import boxes as boxes_lib
from ctp_jax.prepare import video
from ctp_jax.prepare.builders import boxes as builder
from ctp_jax.tasks import base
from tests.prepare.make_boxes import draw, paths, seen
from tests.prepare.make_sources import make_source, prepare_in, touch
from tests.prepare.make_videos import write_video

COUNT, SIDE, SIZE = 14, 40, 32
PATHS = paths(COUNT)  # in frames of 120 x 80: stored at half their size


def write_frames(folder, boxes=PATHS, name="{:06d}.png", first=1):
    folder.mkdir(parents=True)
    for i, frame in enumerate(draw(boxes), start=first):
        Image.fromarray(frame).save(folder / name.format(i))
    return folder


def csv(boxes, columns="frame,x,y,w,h", ids=None, first=0) -> str:
    lines = [columns]
    for i, objects in enumerate(boxes, start=first):
        for n, (x1, y1, x2, y2) in enumerate(objects):
            own = [ids[n]] if ids else []
            lines.append(",".join(map(str, [i, x1, y1, x2 - x1, y2 - y1, *own])))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of the videos, and the one to prepare them in."""
    top, data = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("data")
    one = PATHS[:, :1]
    write_video(top / "a.mp4", draw(PATHS))
    touch(top, "a.csv", text=csv(PATHS, "Frame,x,y,w,h,ID", ids=["dog", "7"]))
    # It lies on its side in the file, with pixels that are half as wide as high.
    lying = np.repeat(np.rot90(draw(one), axes=(1, 2)), 2, axis=2)
    write_video(top / "b.mp4", lying, rotation=270, aspect=Fraction(1, 2))
    lines = [
        f"{x1 + 1}\t{y1 + 1}\t{x2 - x1}\t{y2 - y1}" for x1, y1, x2, y2 in one[:, 0]
    ]
    touch(top, "b.txt", text="\r\n".join(lines))
    # Frame 5 is shown for five intervals.
    times = [40 * (i + 4 * (i > 5)) for i in range(COUNT)]
    write_video(top / "c.mkv", draw(one), times=times)
    touch(top, "c.csv", text=csv(one, "frame;x;y;w;h", first=0).replace(",", ";"))
    write_frames(top / "mot" / "img1")
    rows = ["1,9,1,1,50,50,0,3,1"]  # not to be considered
    rows += [
        f"{i},{n + 4},{x1 + 1},{y1 + 1},{x2 - x1},{y2 - y1},1,1,{0.25 + i / 20}"
        for n in (1, 0)
        for i, (x1, y1, x2, y2) in enumerate(PATHS[:, n], start=1)
        if (i, n) != (3, 0)
    ]
    touch(top / "mot", "gt/gt.txt", text="\n".join(rows))
    touch(top / "mot", "seqinfo.ini", text="[Sequence]\nname=mot\nframeRate=12\n")
    write_frames(top / "otb" / "img", one, "{:04d}.jpg", first=3)
    lines = [f"{x1 + 1} {y1 + 1} {x2 - x1} {y2 - y1}" for x1, y1, x2, y2 in one[:, 0]]
    touch(top / "otb", "groundtruth_rect.txt", text="\n".join(lines))
    write_video(top / "bad.mp4", draw(one))
    touch(top, "bad.csv", text=csv(one[:-1]) + "20,1,1,9,9\n")
    write_video(top / "without.mp4", draw(one[:2]))
    return top, data


@pytest.fixture(scope="module")
def output(prepared):
    top, data = prepared
    flags = ["boxes", "--videos", top, f"--short_side={SIDE}", "--test_share=0"]
    return prepare_in(data, *flags)


def stored(data):
    opened = records.open_records("boxes", "all", str(data))
    read = reading.read_features(opened)
    for row, name in enumerate(opened.ids):
        example = read(tf.constant(row, tf.int64))
        images = [tf.io.decode_jpeg(jpeg).numpy() for jpeg in example["frames"].numpy()]
        found = {k: v.numpy() for k, v in example["annotations"].items()}
        yield str(name), float(opened.fps[row]), images, found


def test_boxes_of_all_formats_are_where_the_objects_are(prepared, output):
    assert "boxes of at most 2 objects a video" in output
    assert (
        "bad.mp4: bad.csv: a box in frame 20, but the 14 frames are numbered" in output
    )
    rates, checked = {}, 0
    for name, fps, images, found in stored(prepared[1]):
        rates[name] = fps
        assert found["boxes"].shape == (len(images), 2, 4)
        assert images[0].shape == (SIDE, 60, 3)
        objects = 2 if name in ("a.mp4", "mot") else 1
        assert not found["visibility"][:, objects:].any()
        assert not found["boxes"][:, objects:].any()
        for i, image in enumerate(images):
            for n in range(objects):
                # In gt.txt the green one comes first.
                if (name, i, n) == ("mot", 2, 1):
                    assert found["visibility"][i, n] == 0
                    np.testing.assert_array_equal(
                        found["boxes"][i, n], found["boxes"][i - 1, n]
                    )
                    continue
                number = 1 - n if name == "mot" else n
                box = found["boxes"][i, n]
                np.testing.assert_allclose(box, seen(image, number), atol=0.5)
                wanted = (i + 6) / 20 if name == "mot" else 1
                assert found["visibility"][i, n] == pytest.approx(wanted)
                checked += 1
        assert len(images) == COUNT + 4 * (name == "c.mkv")
    assert rates == {"a.mp4": 25, "b.mp4": 25, "c.mkv": 25, "mot": 12, "otb": 25}
    assert checked == (2 + 1 + 1 + 2 + 1) * COUNT + 4 - 1


class Clips(base.Task):
    """Asks for clips, and plans nothing."""

    def clip_spec(self, train):
        return ClipSpec(
            num_clips=2,
            num_frames=4,
            size=SIZE,
            strides=(1, 2),
            scales=(36, 48),
            flip=0.5,
        )

    def plan(self, rng, batch, train):
        return {"label": rng.split(2).integer((), 4)}


def test_boxes_follow_crop_and_flip(prepared, output):
    """The clip is drawn here: bilinear samples of the frame, in the plan's window."""
    config = common.pretrain(
        "boxes", split="train", eval_split="", epochs=1, milestones=()
    )
    config.data.data_dir, config.data.workers = str(prepared[1]), 1
    config.batch_size = 5
    opened = base.open_pipeline(config, Clips(config), True)
    videos = {name: found for name, _, _, found in stored(prepared[1])}
    checked = flipped = 0
    for batch in itertools.islice(opened.train_batches(), 6):
        for row, clip in itertools.product(range(5), range(2)):
            name = str(opened.records.ids[batch["index"][row]])
            found = videos[name]
            for t, time in enumerate(batch["times"][row, clip]):
                image = crop(batch, row, clip, t)
                for n, box in enumerate(batch["annotations"]["boxes"][row, clip, t]):
                    visible = found["visibility"][time, n]
                    assert (
                        batch["annotations"]["visibility"][row, clip, t, n] == visible
                    )
                    if not visible or box.min() < 1 or box.max() > SIZE - 1:
                        continue  # its edges cannot be seen
                    number = 1 - n if name == "mot" else n
                    np.testing.assert_allclose(box, seen(image, number), atol=0.5)
                    checked += 1
                    flipped += bool(batch["flip"][row, clip])
    assert checked > 60 and 0 < flipped < checked


def crop(batch, row, clip, t) -> np.ndarray:
    """What the clip shows: bilinear samples of the decoded frame, in float64."""
    y, x, height, width = batch["window"][row, clip]
    image = batch["frames"][row, clip, t].astype(float)
    for axis, (start, length) in enumerate(((y, height), (x, width))):
        extent = int(batch["extent"][row, clip, axis])
        at = start + (np.arange(SIZE) + 0.5) * length / SIZE - 0.5
        distance = np.abs(np.clip(at, 0, extent - 1)[:, None] - np.arange(extent))
        image = np.moveaxis(image, axis, 0)[:extent]
        image = np.tensordot(np.maximum(1 - distance, 0), image, axes=1)
        image = np.moveaxis(image, 0, axis)
    return image[:, ::-1] if batch["flip"][row, clip] else image


HEAD = "frame,x,y,w,h\n"
BOX = "10,10,30,20"
BAD = [
    ("a.csv", "", "a.csv: has no boxes"),
    ("a.csv", HEAD, "a.csv: has no boxes"),
    ("a.csv", f"{HEAD}0,10,10,3O,20", "a.csv:2: w is '3O', no number"),
    ("a.csv", f"{HEAD}0,{BOX}\n\n0,{BOX}", "a.csv:4: a second box in frame 0"),
    ("a.csv", f"{HEAD}0.5,{BOX}", "a.csv:2: frame 0.5: needs a whole number"),
    ("a.csv", f"{HEAD}0,{BOX},1", "a.csv:2: has 6 values, needs frame,x,y,w,h"),
    (
        "a.csv",
        f"{HEAD}1,{BOX}\n2,{BOX}\n3,{BOX}",
        "a box in frame 3, but the 3 frames are numbered from 0 (--first_frame)",
    ),
    (
        "a.csv",
        f"frame,x,y,w,h,car\n0,{BOX},1",
        "id,visibility, has `frame,x,y,w,h,car`",
    ),
    ("a.csv", f"frame,x,y,w,h,id\n0,{BOX},a\n0,{BOX},a", "second box of object a in"),
    (
        "a.csv",
        f"frame,x,y,w,h,visibility\n0,{BOX},8",
        "a.csv:2: visibility 8: needs 0 to 1",
    ),
    ("a.csv", f"{HEAD}0,10,10,0,20\n1,,,,\n2,500,1,9,9", "none of its 3 boxes is visi"),
    ("a.csv", "1,2,3\n", "a.csv:1: has 3 values: needs the columns frame,x,y,w,h (or"),
    ("groundtruth.txt", f"{BOX}\n" * 2, "groundtruth.txt: 2 boxes for 3 frames"),
    ("groundtruth.txt", f"{BOX}\n" * 4, "groundtruth.txt: 4 boxes for 3 frames"),
    (
        "groundtruth.txt",
        "80,30,110,60\n70,30,110,60\n5,3,50,60\n",
        "2 of 3 boxes x,y,w,h leave the frame of 120x80, and x1,y1,x2,y2 would not: pass",
    ),
    (
        "gt.txt",
        f"0,1,{BOX}\n",
        "gt.txt: a box in frame 0, but the 3 frames are numbered",
    ),
    ("gt.txt", "1.5,9,2.5,9,7.5,4,6,1\n", "gt.txt:1: frame 1.5: needs a whole number"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_bad_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(video.VideoError) as caught:
        boxes_lib.File(str(tmp_path / name))(3, (120, 80))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_labels_of_another_length(tmp_path):
    path = tmp_path / "groundtruth.txt"
    with pytest.raises(video.VideoError, match="groundtruth.txt: No such file"):
        boxes_lib.File(str(path))(3, (120, 80))
    path.write_text(f"{BOX}\n" * 3)
    (tmp_path / "absence.label").write_text("0\n0\n")
    with pytest.raises(video.VideoError, match="absence.label: 2 values for 3 frames"):
        boxes_lib.File(str(path))(3, (120, 80))


def test_how_numbers_are_meant(tmp_path):
    corners = tmp_path / "a.txt"
    corners.write_text("80,30,110,60\n\n70,30,110,60\n")

    def box(**options):
        found = boxes_lib.File(str(corners), **options)(2, (120, 80))
        return found["boxes"][0, 0].tolist()

    assert box(box_format="xyxy") == [79, 29, 109, 59]
    assert box(box_format="xyxy", first_pixel=0) == [80, 30, 110, 60]
    assert box(box_format="xywh") == [79, 29, 189, 89]
    table = tmp_path / "a.csv"
    for head in ("frame,x1,y1,x2,y2", "Left,Top,Width,Height,frame"):
        numbers = "0,80,30,110,60" if head[0] == "f" else "80,30,30,30,0"
        table.write_text(f"{head}\n{numbers}\n")
        found = boxes_lib.File(str(table))(2, (120, 80))["boxes"]
        assert found[0, 0].tolist() == [80, 30, 110, 60]
    table.write_text("\ufeffid,frame,x,y,w,h\nb,8,1,2,3,4\na,7,1e9,2,3,4\nc,7,5,6,7,8")
    file = boxes_lib.File(str(table), objects=2, first_frame=7)
    found = file(2, (120, 80))  # a comes first, then c; b is one too many
    assert found["boxes"].tolist() == [[[0] * 4, [5, 6, 12, 14]]] * 2
    assert found["visibility"].tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    "text",
    [
        "1;1;10,5;20,5;30,5;25,5",
        '"1"; "1"; "10,5"; "20,5"; "30,5"; "25,5"',
        "1\t1\t10.5\t20.5\t30.5\t25.5\t\t3\t1",  # no conf
        "1, 1, 10.5, 20.5, 30.5, 25.5\r2, 1, 10.5, 20.5, 30.5, 25.5",
        "1,7,0,0,9,9,0,3,-1\n1,1,10.5,20.5,30.5,25.5,1,3,1",  # the first does not count
        " 1 1 10.5 20.5  30.5 25.5 ",
    ],
)
def test_one_separator_stands_between_numbers(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    found = boxes_lib.File(str(path))(2, (120, 80))
    assert found["boxes"][0, 0].tolist() == [9.5, 19.5, 40, 45]
    assert found["visibility"][0].tolist() == [1]


def test_a_box_that_stands_out_a_little_is_no_mistake(tmp_path):
    path = tmp_path / "groundtruth.txt"
    path.write_text("6,5,117,77\n")  # 2 and 1 pixels out
    found = boxes_lib.File(str(path))(1, (120, 80))
    assert found["boxes"][0, 0].tolist() == [5, 4, 122, 81]


def fingerprint(flags) -> str:
    """Of a preparation: shards of one with another fingerprint are not used."""
    arguments = builder.Builder.read_flags(*flags)
    made = builder.Builder(arguments=arguments, data_dir="/nowhere")
    return made.orders("data", "receipts")[0].fingerprint


def test_what_is_found(tmp_path):
    """Splits, classes and lists as of video_folder; many objects are cut with a note."""
    for place in ("train/cat/a", "test/cat/b", "train/dog/c"):
        touch(tmp_path / place, "0.jpg", "1.jpg")
    text = csv(PATHS[:2], "frame,x,y,w,h,id", ids=["1", "2"])
    touch(tmp_path, "train/cat/a.csv", "test/cat/b.csv", text=text)
    touch(tmp_path, "train/dog/c.csv", text="nonsense")
    flags = ["--videos", str(tmp_path)]
    source = make_source(builder.Builder, *flags)
    assert source.splits == {
        "train": ["train/cat/a", "train/dog/c"],
        "test": ["test/cat/b"],
    }
    assert source.class_names == ["cat", "dog"]
    assert source.annotations == {"boxes": (2, 4), "visibility": (2,)}
    before = fingerprint(flags), fingerprint(flags)
    touch(tmp_path, "train/dog/c.csv", text=text)
    assert before[0] == before[1] != fingerprint(flags)
    source = make_source(builder.Builder, *flags, "--max_objects", "1")
    assert source.annotations == {"boxes": (1, 4), "visibility": (1,)}
    (note,) = source.notes
    assert note == (
        f"{tmp_path}: 3 videos have more than --max_objects=1 objects, of which the first "
        "are kept: test/cat/b has 2"
    )
    lists = touch(tmp_path, "list.txt", text="cat/a\ncat/z\n") + "/list.txt"
    with pytest.raises(
        UserError, match="1 of the 2 listed videos are not in .*: cat/z"
    ):
        make_source(builder.Builder, *flags, "--train_list", lists)
    only = touch(tmp_path / "only", "img1/1.jpg", "gt/gt.txt", text=f"1,1,{BOX}")
    (item,) = make_source(builder.Builder, "--videos", only).items
    assert item.id == "." and item.encode.keywords["annotate"].path.endswith(
        "gt/gt.txt"
    )
    for path in (*tmp_path.rglob("*.csv"), *tmp_path.rglob("gt.txt")):
        path.unlink()
    with pytest.raises(
        UserError, match=r"4 of 4 videos have no file of boxes, VIDEO.csv"
    ):
        make_source(builder.Builder, *flags)
