"""GOT-10k: from sequences with labels to records with boxes."""

import os
import pathlib
import shlex

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from configs import common
from ctp_jax import cli
from ctp_jax.data import reading, records
from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import got10k
from tests.prepare.make_boxes import draw, paths, seen
from tests.prepare.make_sources import make_source, run_main, touch

CONFIGS = pathlib.Path(common.__file__).parent
COUNT = 12
PATH = paths(COUNT)[:, :1]  # one object


def write_sequence(folder, boxes=PATH, lines=None, **labels) -> pathlib.Path:
    """A sequence: `lines` replaces lines of groundtruth.txt, `labels` values of labels."""
    folder.mkdir(parents=True)
    for i, frame in enumerate(draw(boxes), start=1):
        Image.fromarray(frame).save(folder / f"{i:08d}.jpg", quality=95)
    text = [
        f"{x1 + 1:.4f},{y1 + 1:.4f},{x2 - x1:.4f},{y2 - y1:.4f}"
        for x1, y1, x2, y2 in boxes[:, 0]
    ]
    for i, line in (lines or {}).items():
        text[i] = line
    (folder / "groundtruth.txt").write_text("\n".join(text) + "\n")
    for label, usual in (("absence", 0), ("cover", 8), ("cut_by_image", 0)):
        values = [labels.get(label, {}).get(i, usual) for i in range(len(boxes))]
        (folder / f"{label}.label").write_text("".join(f"{v}\n" for v in values))
    return folder


def test_from_sequences_to_records(tmp_path, capsys):
    top = tmp_path / "got10k"
    train = [f"GOT-10k_Train_{n:06d}" for n in (1, 2, 3, 8630, 4)]
    out = PATH - [20, 0, 20, 0]  # begins beyond the left border
    write_sequence(top / "train" / train[0])
    write_sequence(
        top / "train" / train[1],
        lines={3: "-1,-1,-1,-1", 4: "nan,5,nan,5", 5: "9,9,1,20", 6: "500,5,30,30"},
        absence={7: 1},
        cover={8: 0, 9: 4},
        cut_by_image={0: 1, 2: 1},
    )
    write_sequence(top / "train" / train[3])
    write_sequence(top / "train" / "unlisted")
    write_sequence(top / "val" / "GOT-10k_Val_000001", out)
    (top / "val" / "GOT-10k_Val_000001" / "cover.label").unlink()
    short = write_sequence(top / "val" / "GOT-10k_Val_000002")
    (short / "00000012.jpg").unlink()
    for name in ("GOT-10k_Test_000001", "GOT-10k_Test_000002"):
        write_sequence(top / "test" / name)
        (top / "test" / name / "groundtruth.txt").write_text("1,1,5,5\n")
    touch(top, "train/list.txt", text="\n".join(train))
    touch(top, "val/list.txt", text="GOT-10k_Val_000001\r\nGOT-10k_Val_000002\r\n")
    flags = ["got10k", "--videos", top, "--data_dir", tmp_path / "data"]
    code, out_text, errors = run_main(capsys, *flags, "--short_side", 40)
    assert code == 0, errors
    assert [line.removeprefix("note: ") for line in errors] == [
        f"train: 2 of 5 listed sequences are not in {top}, or have no groundtruth.txt: "
        + ", ".join((train[2], train[4])),
        "train: left out, known to have wrong boxes: 1 sequence: " + train[3],
        "train: left out, not in list.txt: 1 sequence: unlisted",
        "test: left out, with a box for the first frame only: 2 sequences",
        "1 of 4 sequences lack absence.label or cover.label: what these say counts as "
        + "visible, the first is val/GOT-10k_Val_000001",
    ]
    # Six frames of the second have no box: below.
    assert (
        "boxes of at most 1 objects a video, one or more of them visible in 83.3%"
        in (out_text)
    )
    for line in (
        "boxes that are no numbers, or far away: 1 in 1 video\n",
        "boxes that are no more than a pixel wide or high: 2 in 1 video\n",
        "boxes that are outside the frame: 1 in 1 video\n",
    ):
        assert line in out_text
    assert "x1,y1,x2,y2" not in out_text
    assert "GOT-10k_Val_000002: groundtruth.txt: 12 boxes for 11 frames" in out_text
    opened = records.open_records("got10k", "all", str(tmp_path / "data"))
    read, found = reading.read_features(opened), {}
    assert set(opened.fps) == {10.0}
    for row, name in enumerate(opened.ids):
        example = read(tf.constant(row, tf.int64))
        found[name] = {k: v.numpy() for k, v in example["annotations"].items()}
        assert found[name]["boxes"].shape == (COUNT, 1, 4)
        if name != "val/GOT-10k_Val_000001":
            for i, jpeg in enumerate(example["frames"].numpy()):
                # Half as large as the files; where the label says, as it was before.
                box = found[name]["boxes"][i, 0]
                if found[name]["visibility"][i] > 0:
                    image = tf.io.decode_jpeg(jpeg).numpy()
                    np.testing.assert_allclose(box, seen(image), atol=0.5)
                    np.testing.assert_allclose(box, PATH[i, 0] / 2, atol=1e-3)
    second = found[f"train/{train[1]}"]
    expected = [1.0] * 3 + [0] * 6 + [0.5, 1, 1]
    np.testing.assert_array_equal(second["visibility"][:, 0], expected)
    cut = [1.0, 0, 1] + [0] * 9
    np.testing.assert_array_equal(second["cut"][:, 0], cut)
    for i in range(3, 9):
        np.testing.assert_array_equal(second["boxes"][i], second["boxes"][2])
    # It sticks out and stays whole; as the file has it, x1 = -12.
    third = found["val/GOT-10k_Val_000001"]
    np.testing.assert_allclose(third["boxes"][:, 0], out[:, 0] / 2, atol=1e-3)
    assert third["boxes"][0, 0, 0] == -6 and (third["visibility"] == 1).all()

    code, again, _ = run_main(capsys, *flags, "--short_side", 40)
    assert again.startswith("already prepared (--overwrite")
    path = top / "train" / train[0] / "groundtruth.txt"
    path.write_text(path.read_text().replace("9.0000,11.0000", "9.5000,11.0000"))
    code, again, _ = run_main(capsys, *flags, "--short_side", 40)
    assert again.startswith(
        "already prepared, but since then the boxes, or what they are made from, changed"
    )


def test_corners_by_mistake_are_said(tmp_path, capsys):
    """In the summary: GOT-10k's boxes are none, so that no video is left out for it."""
    lines = {i: f"{70 - i},9,{75 - i},{30 + i}" for i in range(4)}
    lines[6] = "inf,5,-inf,1e300"
    write_sequence(tmp_path / "train" / "a", lines=lines)
    flags = ["got10k", "--videos", tmp_path, "--data_dir", tmp_path / "data"]
    code, out, errors = run_main(capsys, *flags)
    assert code == 0, errors
    line = "boxes that leave the frame, and would not as x1,y1,x2,y2: 4 in 1 video; "
    assert line + "if they are corners: --box_format=xyxy --overwrite\n" in out
    assert "boxes that are no numbers, or far away: 1 in 1 video" in out
    flags += ["--box_format=xyxy", "--name=corners"]
    assert run_main(capsys, *flags)[0] == 0
    opened = records.open_records("corners", "train", str(tmp_path / "data"))
    read = reading.read_features(opened)(tf.constant(0, tf.int64))["annotations"]
    np.testing.assert_allclose(read["boxes"][1, 0], [68, 8, 73, 30], atol=1e-4)


def test_frames_without_boxes_are_said(tmp_path, capsys):
    write_sequence(tmp_path / "val" / "a")
    (write_sequence(tmp_path / "val" / "b") / "groundtruth.txt").unlink()
    flags = ["got10k", "--videos", tmp_path, "--data_dir", tmp_path / "data"]
    code, out, errors = run_main(capsys, *flags)
    assert code == 0 and "  val: 1 of 1 video\n" in out
    said = "note: val: left out, without groundtruth.txt: 1 folder of frames: val/b"
    assert errors == [said]


@pytest.mark.parametrize("held_out", ["", "val", "test"])
@pytest.mark.parametrize("name", ["got10k", "mine"])
def test_the_next_command_takes_the_splits_that_are_there(
    name, held_out, tmp_path, capsys
):
    for split in filter(None, ("train", held_out)):
        write_sequence(tmp_path / split / "a")
    flags = ["--videos", tmp_path, "--data_dir", tmp_path / "data", "--name", name]
    code, out, _ = run_main(capsys, "got10k", *flags)
    words = shlex.split(out.partition("next:\n")[2].replace("\\\n", ""))
    given = dict(word.split("=", 1) for word in words if word.startswith("--"))
    config = cli.load_config(str(CONFIGS / given["--config"].removeprefix("configs/")))
    assert code == 0 and config.data.split == "train"
    assert given.get("--config.data.eval_split", config.data.eval_split) == held_out


LAYOUTS = {
    "as unpacked": (
        "",
        ["full_data/train_data/GOT-10k_Train_split_01/GOT-10k_Train_000001"]
        + ["full_data/train_data/GOT-10k_Train_split_02/GOT-10k_Train_000002"]
        + ["full_data/val_data/val/GOT-10k_Val_000001"],
        "full_data/train_data/list.txt",
    ),
    "parts only": (
        "",
        ["GOT-10k_Train_split_01/GOT-10k_Train_000001"]
        + ["GOT-10k_Train_split_02/GOT-10k_Train_000002"]
        + ["GOT-10k_Val_000001"],
        "",
    ),
    "own names": ("", ["train/cat", "train/validation_dog", "val/cat"], ""),
    "one split": ("train", ["train/a", "train/b"], "train/list.txt"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_sequences_may_lie(tmp_path, layout):
    below, folders, listed = LAYOUTS[layout]
    for folder in folders:
        touch(
            tmp_path / folder, "00000001.jpg", "groundtruth.txt", text="1,2,9,9\n" * 2
        )
    (tmp_path / folders[0] / "link").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    names = [folder.rpartition("/")[2] for folder in folders]
    if listed:
        touch(tmp_path, listed, text="\n".join(names[1::-1]) + "\n")
    source = make_source(got10k.Builder, "--videos", str(tmp_path / below))
    order = names[1::-1] if listed else names[:2]
    expected = {"train": [f"train/{name}" for name in order]}
    if len(names) > 2:
        expected["val"] = [f"val/{names[2]}"]
    assert source.splits == expected
    assert [item.label for item in source.items] == [-1] * len(names)


def test_names_are_one_line_of_text(tmp_path, capsys):
    for name in (b"train/a\xff", b"train/c\nd"):
        write_sequence(tmp_path / os.fsdecode(name))
    flags = ["got10k", "--videos", tmp_path, "--data_dir", tmp_path / "data"]
    code, _, errors = run_main(capsys, *flags)
    assert code == 0, errors
    opened = records.open_records("got10k", "train", str(tmp_path / "data"))
    assert opened.ids.tolist() == ["train/a\\xff", "train/c\\x0ad"]


def test_no_sequences(tmp_path):
    touch(tmp_path / "train" / "a", "00000001.jpg")
    for flags, message in [
        ([], "--videos is missing"),
        (["--videos", "/no/where"], "--videos=/no/where: no such folder"),
        (["--videos", str(tmp_path)], "needs folders train and val, with folders of a"),
    ]:
        with pytest.raises(UserError, match=message):
            make_source(got10k.Builder, *flags)
