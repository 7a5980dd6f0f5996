"""What is found in real folders: links, odd files, names of any bytes, splits."""

import os
import pathlib
import subprocess
import sys
import unicodedata

import pytest

from ctp_jax.data import records
from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base, folders, hmdb51, kinetics400, video_folder
from tests.prepare.make_sources import make_source, run_main, touch
from tests.prepare.make_videos import write_numbered


def list_folder(folder, *flags) -> base.Source:
    return make_source(video_folder.VideoFolder, "--videos", str(folder), *flags)


def ids(source) -> list[str]:
    return [item.id for item in source.items]


def test_a_folder_is_entered_once_however_many_links_lead_to_it(tmp_path):
    top, outside = tmp_path / "around" / "top", tmp_path / "outside"
    touch(top, "z/x.mp4", "z/deep/y.mp4", "b/y.mp4")
    touch(tmp_path / "around", "not_mine.mp4")
    touch(outside, "class/o.mp4", "class/inner/p.mp4")
    for link, to in [
        ("z/loop", ".."),  # the folder itself
        ("b/around", "../.."),  # what lies around it
        ("a_link", "z"),  # comes before z, whose own name counts
        ("root", "/"),
        ("o1", str(outside / "class")),
        ("o2", str(outside / "class")),
        ("z/inner", str(outside / "class" / "inner")),
        ("self", "self"),
    ]:
        (top / link).symlink_to(to)
    (outside / "class" / "back").symlink_to(top)
    source = list_folder(top)
    want = ["b/y.mp4", "o1/inner/p.mp4", "o1/o.mp4", "z/deep/y.mp4", "z/x.mp4"]
    assert ids(source) == want
    said = "\n".join(source.notes)
    assert "passed over, links to folders that are searched anyway" in said
    assert "links that cannot be followed" in said or "broken links (1)" in said


def test_what_is_passed_over_is_said(tmp_path, monkeypatch):
    touch(
        tmp_path, "a/x.MTS", "a/y.VOB", "a/z.divx", "b/w.gif", "b/notes.txt", "b/README"
    )
    touch(
        tmp_path,
        "b/2.TXT",
        "b/.hidden.mp4",
        "b/._x.mp4",
        ".git/x.mp4",
        "__MACOSX/a/x.mp4",
    )
    touch(tmp_path, "closed/x.mp4")
    (tmp_path / "b/broken.mp4").symlink_to("nowhere")
    os.mkfifo(tmp_path / "b/pipe.mp4")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = list_folder(tmp_path, "--test_share=0.5")
    assert ids(source) == ["a/x.MTS", "a/y.VOB", "a/z.divx", "b/w.gif"]
    assert sorted(note.removeprefix(f"{tmp_path}: ") for note in source.notes) == [
        "passed over, broken links (1): b/broken.mp4",
        "passed over, folders that cannot be read (Permission denied) (1): closed",
        "passed over, neither files nor folders (1): b/pipe.mp4",
        "passed over, without the ending of a video (3): 2 .txt, 1 without an ending",
    ]


def test_no_video_at_all(tmp_path):
    touch(tmp_path, "a/x.txt", "a/.x.mp4")
    with pytest.raises(
        UserError, match="needs videos in it; passed over, .*: 1 .txt; endings"
    ) as e:
        list_folder(tmp_path)
    assert "\n" not in str(e.value)


def test_hidden_lists_are_no_lists(tmp_path):
    """macOS puts a binary file `._NAME` beside every file that it copies."""
    videos = touch(tmp_path / "videos", "wave/a b.avi", "aBc.mp4")
    lists = tmp_path / "lists"
    touch(lists, "wave_test_split1.txt", text="a b.avi 1\n._a b.avi 1\n")
    touch(lists, "train.csv", text="label,youtube_id,time_start,time_end\nx,aBc,1,2\n")
    for name in ("._wave_test_split1.txt", "._train.csv", "__MACOSX/train.csv"):
        touch(lists, name)
        (lists / name).write_bytes(b"\0\x05\x16\x07\xff")
    flags = ["--videos", videos, "--lists", str(lists)]
    assert ids(make_source(hmdb51.Hmdb51, *flags)) == ["wave/a b.avi"]
    assert ids(make_source(kinetics400.Kinetics400, *flags)) == ["aBc.mp4"]


ODD = [
    b"a/caf\xe9.mp4",  # Latin-1
    b"a/\xd6\xd0.mp4",  # GBK
    "a/caf\u00e9.mp4".encode(),
    "b/cafe\u0301.mp4".encode(),  # decomposed
    b"b/line\nfeed\ttab \x1b[2J.mp4",
    "b/\u2028 \U0001f642.mp4".encode(),
    "b\xe9/x y (1).mp4".encode(),
    b"b\xe9/x.mp4",  # a class that is called so in Latin-1
    b"a/literally caf\\xe9.mp4",
]
NAMES = [
    r"a/caf\xe9.mp4",
    r"a/\xd6\xd0.mp4",
    "a/caf\u00e9.mp4",
    "b/cafe\u0301.mp4",
    r"b/line\x0afeed\x09tab \x1b[2J.mp4",
    "b/\\u2028 \U0001f642.mp4",
    "b\xe9/x y (1).mp4",
    r"b\xe9/x.mp4",
    r"a/literally caf\xe9.mp4",
]


def make_odd(top) -> None:
    for name in ODD:
        path = os.path.join(os.fsencode(top), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        pathlib.Path(os.fsdecode(path)).write_bytes(b"x")


def test_names_of_any_bytes(tmp_path):
    make_odd(tmp_path)
    found = folders.Folder(str(tmp_path))
    assert sorted(found.paths) == sorted(NAMES)
    for name, path in zip(NAMES, ODD, strict=True):
        assert os.fsencode(found.paths[name]) == path
        item = found.item(name, 0, base.Options())
        assert os.path.exists(item.encode.args[0])
        assert item.id.isprintable() and item.id.encode()
    source = list_folder(tmp_path)
    assert source.class_names == ["a", "b", "b\xe9"]  # one class in two encodings
    train, test = source.splits["train"], source.splits["test"]
    assert sorted([*train, *test]) == sorted(NAMES)


def test_two_names_that_would_be_one(tmp_path):
    for name in (b"x\xe9.mp4", rb"x\xe9.mp4"):
        pathlib.Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).touch()
    assert len(set(folders.Folder(str(tmp_path)).paths)) == 2


def test_the_split_is_the_same_on_macos(tmp_path):
    names = [f"caf\u00e9/\u00e9{i}.mp4" for i in range(30)]
    plain = list_folder(touch(tmp_path / "nfc", *names))
    apart = [unicodedata.normalize("NFD", name) for name in names]
    other = list_folder(touch(tmp_path / "nfd", *apart))
    assert plain.class_names == other.class_names == ["caf\u00e9"]
    for split, videos in other.splits.items():
        composed = [unicodedata.normalize("NFC", name) for name in videos]
        assert sorted(composed) == sorted(plain.splits[split])


LAYOUTS = {  # place of the video NAME of the class CLASS in SPLIT: names of the splits
    "{split}/{label}/{name}": ("train", "val", "test"),
    "{split}/{label}/deep/{name}": ("Training", "validation", "Testing"),
    "{label}/{split}/{name}": ("train", "valid", "test"),
    "data/{split}/{label}/{name}": ("train_set", "val_256", "test01"),
    "videos_{split}/{label}/{name}": ("train", "val", "test"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_and_classes_by_folders(tmp_path, layout):
    for split, called in zip(("train", "val", "test"), LAYOUTS[layout], strict=True):
        for label in ("Archery", "test drive"):
            touch(
                tmp_path, layout.format(split=called, label=label, name=f"{split}.mp4")
            )
    source = list_folder(tmp_path)
    assert source.class_names == ["Archery", "test drive"]
    assert {split: len(v) for split, v in source.splits.items()} == dict.fromkeys(
        ("train", "val", "test"), 2
    )
    for split, videos in source.splits.items():
        assert all(name.endswith(f"/{split}.mp4") for name in videos)
    for item in source.items:
        assert source.class_names[item.label] in item.id
    unlabelled = list_folder(tmp_path, "--unlabelled")
    assert unlabelled.splits == source.splits and not unlabelled.class_names


def test_splits_without_classes_and_without_a_test_split(tmp_path):
    source = list_folder(touch(tmp_path, "train/a.mp4", "val/b.mp4"))
    assert source.splits == {"train": ["train/a.mp4"], "val": ["val/b.mp4"]}
    assert not source.class_names and {item.label for item in source.items} == {-1}
    assert "no split `test`" in source.notes[-1]


@pytest.mark.parametrize("others", [("Archery/b.mp4",), ("b.mp4",), ("train2x/b.mp4",)])
def test_folders_of_which_some_are_splits(tmp_path, others):
    touch(tmp_path, "train/Archery/a.mp4", *others)
    with pytest.raises(UserError, match="lie in train, which would be splits, and in"):
        list_folder(tmp_path)
    assert len(list_folder(tmp_path, "--unlabelled").items) == 2


def test_classes_that_sound_like_splits_are_classes(tmp_path):
    source = list_folder(touch(tmp_path, "training dog/a.mp4", "test drive/b.mp4"))
    assert source.class_names == ["test drive", "training dog"]
    source = list_folder(touch(tmp_path / "b", "training dog/a.mp4"))
    assert source.class_names == ["training dog"]


def test_the_first_command_of_the_readme(tmp_path, capsys):
    """A mixed folder with bad files works; if too many are bad, the remedy works."""
    videos = touch(tmp_path / "videos", "run/bad.mp4", "sit/bad.avi", "notes.txt")
    for i, name in enumerate(["run/a.mp4", "sit/b.mp4", "c.mp4", "sit/\u00e9.mp4"]):
        write_numbered(pathlib.Path(videos, name), 3 + i)
    command = ["video_folder", "--videos", videos, "--name", "mine", "--workers", "1"]
    command += ["--data_dir", tmp_path / "data"]
    code, _, errors = run_main(capsys, *command, "--max_bad=0.1")
    assert code == 2 and sum(line.startswith("skipped: ") for line in errors) == 2
    assert errors[-1].endswith("leave them out: pass --max_bad=0.34")
    code, out, errors = run_main(capsys, *command, "--max_bad=0.34")
    assert code == 0 and "mine: 4 videos" in out and "videos skipped: 2" in out
    code, again, _ = run_main(capsys, *command, "--overwrite")
    assert code == 0 and again.splitlines()[0] == out.splitlines()[0]
    assert any(
        "beside the class folders, without a label, 1 video" in line for line in errors
    )


def test_equal_videos_in_two_splits_are_said(tmp_path, capsys):
    videos = tmp_path / "videos"
    for i, name in enumerate(["train/a/x.mp4", "train/a/z.mp4", "test/a/w.mp4"]):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        write_numbered(videos / name, 3 + i)
    for name in ("train/a/again.mp4", "test/a/other name.mp4"):
        (videos / name).write_bytes((videos / "train/a/x.mp4").read_bytes())
    flags = ["--videos", videos, "--data_dir", tmp_path, "--workers", 1]
    code, out, _ = run_main(capsys, "video_folder", *flags)
    assert code == 0
    assert "videos with the same frames as one in another split: 2" in out
    opened = records.open_records("video_folder", "all", str(tmp_path))
    assert pathlib.Path(opened.directory, base.REPEATED_FILE).read_text() == (
        "train: train/a/again.mp4\tsame as test: test/a/other name.mp4\n"
        "train: train/a/x.mp4\tsame as test: test/a/other name.mp4\n"
    )


def test_any_locale(tmp_path):
    """In the plainest one, with names that it cannot express, from flag to index."""
    names = ["b\u00e9/one.mp4", "b\u00e9/two.mp4"]
    (tmp_path / "b\u00e9").mkdir()
    for i, name in enumerate(names):
        write_numbered(tmp_path / name, 3 + i)
    odd = os.path.join(os.fsencode(tmp_path), b"b\xc3\xa9/caf\xe9\n.mp4")
    pathlib.Path(os.fsdecode(odd)).write_bytes((tmp_path / names[0]).read_bytes())
    (tmp_path / "bad \u00e9.avi").write_bytes(b"x")
    done = subprocess.run(
        [sys.executable, "-m", "ctp_jax.prepare", "video_folder", "--videos", tmp_path]
        + ["--data_dir", tmp_path / ".data", "--workers=1"],
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"bad \xe9.avi: " in done.stdout
    opened = records.open_records("video_folder", "all", str(tmp_path / ".data"))
    assert sorted(opened.ids) == ["b\u00e9/caf\\xe9\\x0a.mp4", *names]
    assert opened.class_names == ("b\u00e9",)
