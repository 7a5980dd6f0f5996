"""What the builders of video files find in folders and lists."""

import os

import pytest

from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import folders, hmdb51, ucf101, video_folder
from tests.prepare.make_sources import make_source, touch


def make_ucf(tmp_path):
    videos = touch(
        tmp_path / "videos",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "HandstandPushups/v_HandstandPushups_g02_c01.avi",
        "Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g01_c02.mp4",
        "Archery/v_Archery_g09_c09.avi",
        "Archery/notes.txt",
    )
    folder = tmp_path / "lists"
    touch(folder, "classInd.txt", text="1 Archery\n2 HandstandPushups\n")
    touch(
        folder,
        "trainlist01.txt",
        text="Archery/v_Archery_g01_c01.avi 1\r\n"
        "HandStandPushups/v_HandStandPushups_g02_c01.avi 2\r\n",
    )
    touch(
        folder,
        "testlist01.txt",
        text="HandStandPushups/v_HandStandPushups_g01_c01.avi\n\n"
        "Archery/v_Archery_g01_c02.avi\n",
    )
    return videos, folder


def test_ucf_lists_find_files_spelt_otherwise(tmp_path):
    videos, folder = make_ucf(tmp_path)
    source = make_source(ucf101.Ucf101, "--videos", videos, "--lists", str(folder))
    assert source.class_names == ["Archery", "HandstandPushups"]
    assert source.splits == {
        "train01": [
            "Archery/v_Archery_g01_c01.avi",
            "HandstandPushups/v_HandstandPushups_g02_c01.avi",
        ],
        "test01": [
            "HandstandPushups/v_HandStandPushups_g01_c01.avi",
            "Archery/v_Archery_g01_c02.mp4",
        ],
    }
    assert {item.id: item.label for item in source.items} == {
        "Archery/v_Archery_g01_c01.avi": 0,
        "Archery/v_Archery_g01_c02.mp4": 0,
        "HandstandPushups/v_HandStandPushups_g01_c01.avi": 1,
        "HandstandPushups/v_HandstandPushups_g02_c01.avi": 1,
    }


def test_ucf_videos_in_one_folder(tmp_path):
    _, folder = make_ucf(tmp_path)
    flat = touch(
        tmp_path / "flat",
        "v_HandStandPushups_g01_c01.avi",
        "v_HandstandPushups_g02_c01.avi",
        "v_Archery_g01_c01.avi",
        "v_Archery_g01_c02.avi",
    )
    source = make_source(ucf101.Ucf101, "--videos", flat, "--lists", str(folder))
    assert {item.id: item.label for item in source.items} == {
        "v_Archery_g01_c01.avi": 0,
        "v_Archery_g01_c02.avi": 0,
        "v_HandStandPushups_g01_c01.avi": 1,
        "v_HandstandPushups_g02_c01.avi": 1,
    }


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classInd.txt", "0 Archery\n", r"classInd.txt:1: needs `1 ClassName`"),
        ("classInd.txt", "1 Archery\nrun\n", r"classInd.txt:2: needs `2 ClassName`"),
        ("classInd.txt", "", r"classInd.txt: is empty"),
        ("trainlist01.txt", "Archery/a.avi 1\na b c\n", r"trainlist01.txt:2: needs"),
        ("trainlist01.txt", "v_Archery.avi\n", r"trainlist01.txt:1: needs"),
        ("trainlist01.txt", "v_Archery.avi 3\n", r"trainlist01.txt:1: needs .* and 3"),
        ("trainlist01.txt", "Swim/a.avi\n", r"trainlist01.txt:1: class 'Swim' is not"),
        ("trainlist01.txt", "Archery/a.avi 2\n", r"trainlist01.txt:1: .* number 1 in"),
        (
            "trainlist01.txt",
            "Archery/a.avi 1\nArchery/b.avi 1\n",
            r"trainlist01.txt:1: 2 of the 4 listed .*Archery/a.avi, Archery/b.avi",
        ),
        (
            "trainlist01.txt",
            "Archery/v_Archery_g01_c02.avi 1\n",
            r"trainlist01.txt:1: .* is listed already at .*testlist01.txt:3",
        ),
    ],
)
def test_bad_ucf_lists(tmp_path, file, text, message):
    videos, folder = make_ucf(tmp_path)
    touch(folder, file, text=text)
    with pytest.raises(UserError, match=message) as caught:
        make_source(ucf101.Ucf101, "--videos", videos, "--lists", str(folder))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_text(tmp_path):
    videos, folder = make_ucf(tmp_path)
    path, flags = (
        folder / "trainlist01.txt",
        ["--videos", videos, "--lists", str(folder)],
    )
    path.write_bytes(b"\x89PNG\0\0\x81")
    with pytest.raises(UserError, match="trainlist01.txt: not a text file"):
        make_source(ucf101.Ucf101, *flags)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="trainlist01.txt: not a file"):
        make_source(ucf101.Ucf101, *flags)


def test_missing_folders(tmp_path):
    videos, folder = make_ucf(tmp_path)
    empty = touch(tmp_path / "empty", "readme.md")
    for flags, message in [
        ([], "--lists is missing"),
        (["--lists", str(folder)], "--videos is missing"),
        (
            ["--lists", str(folder), "--videos", "/no/where"],
            "/no/where: no such folder",
        ),
        (["--lists", str(folder), "--videos", empty], "needs videos in it"),
        (["--lists", "/no/where", "--videos", videos], "/no/where: no such folder"),
        (["--lists", empty, "--videos", videos], "no list in it"),
    ]:
        with pytest.raises(UserError, match=message):
            make_source(ucf101.Ucf101, *flags)


def test_hmdb_lists(tmp_path):
    videos = touch(
        tmp_path / "videos",
        "brush_hair/a#b_(x).avi",
        "brush_hair/b.avi",
        "wave/c.avi",
        "wave/d.avi",
    )
    folder = tmp_path / "lists"
    for split, uses in [(1, "1210"), (2, "0021")]:
        first, second, third, fourth = uses
        text = f"a#b_(x).avi {first} \nb.avi {second} \n"
        touch(folder, f"brush_hair_test_split{split}.txt", text=text)
        text = f"c.avi {third}\nd.avi {fourth}\n"
        touch(folder, f"wave_test_split{split}.txt", text=text)
    flags = ["--videos", videos, "--lists", str(folder)]
    source = make_source(hmdb51.Hmdb51, *flags)
    assert source.class_names == ["brush_hair", "wave"]
    assert [item.label for item in source.items] == [0, 0, 1, 1]
    assert source.splits == {
        "train01": ["brush_hair/a#b_(x).avi", "wave/c.avi"],
        "test01": ["brush_hair/b.avi"],
        "unused01": ["wave/d.avi"],
        "unused02": ["brush_hair/a#b_(x).avi", "brush_hair/b.avi"],
        "test02": ["wave/c.avi"],
        "train02": ["wave/d.avi"],
    }
    touch(folder, "wave_test_split2.txt", text="c.avi 1\nd.avi 3\n")
    with pytest.raises(
        UserError, match="wave_test_split2.txt:2: needs `video.avi 0|1|2`"
    ):
        make_source(hmdb51.Hmdb51, *flags)


def test_folder_of_classes_is_split_class_by_class(tmp_path):
    names = [f"{c}/{i}.mp4" for c in ("run", "sit", "once") for i in range(20)]
    names = [
        name for name in names if not name.startswith("once") or name == "once/0.mp4"
    ]
    videos = touch(tmp_path, *names, ".hidden/x.mp4", "run/.part.mp4")
    source = make_source(video_folder.VideoFolder, "--videos", videos)
    assert source.class_names == ["once", "run", "sit"]
    train, test = source.splits["train"], source.splits["test"]
    assert sorted(train + test) == sorted(names)
    assert [sum(t.startswith(c) for t in test) for c in ("run", "sit", "once")] == [
        2,
        2,
        0,
    ]
    # The split follows from the names alone.
    again = make_source(video_folder.VideoFolder, "--videos", videos + "/")
    assert again.splits == source.splits
    half = make_source(
        video_folder.VideoFolder, "--videos", videos, "--test_share", "0.5"
    )
    assert set(test) < set(half.splits["test"])


def test_flat_folder_and_deep_folder_without_labels(tmp_path):
    flat = touch(tmp_path / "flat", "a.mp4", "b.MOV")
    source = make_source(video_folder.VideoFolder, "--videos", flat)
    assert [(i.id, i.label) for i in source.items] == [("a.mp4", -1), ("b.MOV", -1)]
    assert list(source.class_names) == []
    mixed = touch(tmp_path / "mixed", "a.mp4", "walk/b.mp4", "walk/deep/c.mp4")
    source = make_source(video_folder.VideoFolder, "--videos", mixed)
    assert [item.label for item in source.items] == [-1, 0, 0]
    note, held_out = source.notes
    assert "its folders name no splits, so 10% of the videos" in held_out
    assert "beside the class folders, without a label, 1 video, the first is" in note
    source = make_source(video_folder.VideoFolder, "--videos", mixed, "--unlabelled")
    assert {item.label for item in source.items} == {-1}


def test_one_list_each(tmp_path):
    videos = touch(tmp_path / "videos", "run/a.mp4", "sit/b.mp4", "sit/c.mp4")
    touch(tmp_path, "train.txt", text="run/a.mp4\nsit/b.mp4\n")
    touch(tmp_path, "test.txt", text="sit/c.mp4\n")
    flags = ["--videos", videos, "--train_list", str(tmp_path / "train.txt")]
    flags += ["--test_list", str(tmp_path / "test.txt")]
    source = make_source(video_folder.VideoFolder, *flags)
    assert source.splits == {"train": ["run/a.mp4", "sit/b.mp4"], "test": ["sit/c.mp4"]}
    with pytest.raises(UserError, match="needs one of them"):
        make_source(video_folder.VideoFolder, *flags, "--lists", videos)


def test_two_files_of_one_name_are_not_mistaken(tmp_path):
    folder = folders.Folder(touch(tmp_path, "x/a.avi", "y/a.mp4", "x/B.mp4"))
    assert folder.locate("x/a.avi") == "x/a.avi"
    assert folder.locate("y/A.avi") == "y/a.mp4"
    assert folder.locate("z/a.avi") is None
    assert folder.locate("z/b.avi") == "x/B.mp4"
