"""Kinetics: finding the clips that are there, reading the lists, and from end to end."""

import pathlib

import pytest
import tensorflow as tf

from ctp_jax.data import reading, records
from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import base, kinetics400
from tests.prepare.make_sources import make_source, prepare_in, run_main, touch
from tests.prepare.make_videos import numbers, write_numbered

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
TRAIN = HEADER + (
    "petting animal (not cat),-3B32lodo2M,59,69,train,0\n"
    '"air drumming",_db_1_2,40,50,train,0\n'
)
VAL = HEADER + "air drumming,aBc,0,10,val,1\n"
TEST = "youtube_id,time_start,time_end,split\nxyz,3.0,13.0,test\n"
CLASSES = ["air drumming", "petting animal (not cat)"]
CLIPS = ("-3B32lodo2M_000059_000069", "_db_1_2_000040_000050", "aBc_000000_000010")


def make_lists(tmp_path, **files: str) -> str:
    """A folder with train.csv, val.csv and those given; None leaves one out."""
    files = {"train": TRAIN, "val": VAL, **files}
    for name, text in files.items():
        if text is not None:
            touch(tmp_path / "lists", f"{name}.csv", text=text)
    return str(tmp_path / "lists")


def list_clips(tmp_path, names, *flags, **files):
    lists = make_lists(tmp_path, **files)
    videos = touch(tmp_path / "videos", *names)
    return make_source(
        kinetics400.Builder, "--videos", videos, "--lists", lists, *flags
    )


def test_from_clips_to_records(tmp_path, capsys):
    """The classes of validation clips that are not there keep their numbers."""
    videos, data = tmp_path / "videos", str(tmp_path / "data")
    places = [
        f"train/petting_animal/{CLIPS[0]}.mp4",
        f"val/air drumming/{CLIPS[2]}.mkv",
    ]
    places += [f"train/air drumming/{CLIPS[1]}.mp4", "test/xyz_000003_000013.mp4"]
    for i, place in enumerate(places):
        (videos / place).parent.mkdir(parents=True, exist_ok=True)
        write_numbered(videos / place, 3 + i)
    (videos / places[2]).write_bytes((videos / places[2]).read_bytes()[:900])
    val = VAL + "petting animal (not cat),gone,7,17,val,0\n"
    lists = make_lists(tmp_path, val=val, test=TEST)
    flags = ["--videos", videos, "--lists", lists, "--data_dir", data]
    code, out, errors = run_main(capsys, "kinetics400", *flags, "--name", "kinetics600")
    assert code == 0, errors
    assert errors == [
        f"note: val: 1 of 2 listed clips (50.0%) are not in {videos}: gone_000007_000017",
        "note: val: 1 of 2 classes have no video: petting animal (not cat)",
    ]
    for line in (
        "kinetics600: 3 videos",
        "train: 1 of 2 videos",
        "videos skipped: 1",
        "listed videos that are not there: 1",
        "val: gone_000007_000017",
        "note: 600 classes were expected, this has 2",
    ):
        assert line in out, out
    expected = {
        "train": (places[0], 1, 3),
        "val": (places[1], 0, 4),
        "test": (places[3], -1, 6),
    }
    for split, (place, label, count) in expected.items():
        opened = records.open_records("kinetics600", split, data)
        assert opened.class_names == tuple(CLASSES)
        assert opened.ids.tolist() == [place]
        assert opened.label.tolist() == [label]
        example = reading.read_features(opened)(tf.constant(0, tf.int64))
        frames = [tf.io.decode_jpeg(f).numpy() for f in example["frames"].numpy()]
        assert numbers(frames) == list(range(count))
    folder = pathlib.Path(opened.directory)
    assert (folder / base.MISSING_FILE).read_text() == "val\tgone_000007_000017\n"
    assert (folder / base.SKIPPED_FILE).read_text().startswith(places[2] + "\t")

    code, out, errors = run_main(capsys, "kinetics400", *flags, "--name", "kinetics600")
    assert (code, errors) == (0, [])
    assert "already prepared" in out
    assert "listed videos that are not there: 1" in out


LAYOUTS = {
    "classes": [
        f"air drumming/{CLIPS[1]}.mp4",
        f"any/{CLIPS[0]}.mp4",
        f"x/{CLIPS[2]}.mp4",
    ],
    "flat": [f"{clip}.mp4" for clip in CLIPS],
    "splits": [f"train/{CLIPS[0]}.mp4", f"train/{CLIPS[1]}.mp4", f"val/{CLIPS[2]}.mp4"],
    "ids": ["-3B32lodo2M.mp4", "_db_1_2.webm", "v/aBc.MKV"],
    "unpadded": ["-3B32lodo2M_59_69.mp4", "_db_1_2_40_50.mp4", "aBc_0_10.mp4"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    others = ["air drumming/abc_000000_000010.mp4", "train/unlisted.mp4", "_db.mp4"]
    source = list_clips(tmp_path, [*LAYOUTS[layout], *others])
    assert source.class_names == CLASSES
    labels = {item.id: item.label for item in source.items}
    assert sorted(labels) == sorted(LAYOUTS[layout])
    assert sorted(labels.values()) == [0, 0, 1]
    ids = {name: [path for path in labels if name in path] for name in ("3B3", "_db")}
    assert source.splits["train"] == [*ids["3B3"], *ids["_db"]]
    assert labels[ids["3B3"][0]] == 1
    assert [labels[path] for path in source.splits["val"]] == [0]
    assert list(source.missing) == []


def test_replacements_of_damaged_clips_are_preferred(tmp_path):
    replacement = f"replacement/replacement_for_corrupted_k400/{CLIPS[0]}.mp4"
    names = [f"{CLIPS[0]}.mp4", replacement, f"z/{CLIPS[0]}.mp4", *LAYOUTS["ids"][1:]]
    assert list_clips(tmp_path, names).splits["train"][0] == replacement


def test_a_bare_id_is_not_taken_for_one_of_several_clips(tmp_path):
    train = TRAIN + "air drumming,-3B32lodo2M,80,90,train,0\n"
    source = list_clips(tmp_path, LAYOUTS["ids"], "--min_found", "0.1", train=train)
    assert source.splits["train"] == ["_db_1_2.webm"]
    assert [split for split, _ in source.missing] == ["train", "train"]


def test_repeated_lines(tmp_path):
    again = "air drumming,_db_1_2,40,50,train,0\n"
    source = list_clips(tmp_path, LAYOUTS["flat"], train=TRAIN + again)
    assert list(source.notes) == ["val: 1 of 2 classes have no video: " + CLASSES[1]]
    assert len(source.splits["train"]) == 2
    val = VAL + "petting animal (not cat),_db_1_2,40,50,val,0\n"
    source = list_clips(tmp_path, LAYOUTS["flat"], train=TRAIN + again, val=val)
    assert source.splits["val"] == [f"{CLIPS[2]}.mp4"]
    assert "1 lines list a clip again with another class or split" in source.notes[0]
    assert "val.csv:3, which repeats" in source.notes[0]
    assert {i.id: i.label for i in source.items}[f"{CLIPS[1]}.mp4"] == 0


def test_lists_in_other_places(tmp_path):
    videos = touch(tmp_path / "videos", *LAYOUTS["flat"])
    expected = list_clips(tmp_path, LAYOUTS["flat"]).splits
    # As in the older archives, with a mark and line ends of Windows.
    folder = tmp_path / "old"
    touch(folder, "kinetics_val/kinetics_val.csv", text="\ufeff" + VAL)
    touch(folder, "kinetics_train/kinetics-400_train.csv")
    train = folder / "kinetics_train" / "kinetics-400_train.csv"
    train.write_bytes(TRAIN.replace("\n", "\r\n").encode())
    one = touch(tmp_path / "one", "all.csv", text=VAL + TRAIN.removeprefix(HEADER))
    validate = touch(tmp_path / "new", "train.csv", text=TRAIN)
    touch(tmp_path / "new", "validate.csv", text=VAL.replace(",val,", ",validate,"))
    for place in (str(folder), f"{one}/all.csv", validate):
        found = make_source(kinetics400.Builder, "--videos", videos, "--lists", place)
        assert found.splits == expected
        assert found.class_names == CLASSES


def test_labelled_test_clips_and_a_test_split_that_is_not_there(tmp_path):
    test = HEADER + "air drumming,xyz,3,13,test,0\n,other,3,13,test,0\n"
    names = [*LAYOUTS["flat"], "xyz.mp4", "other.mp4"]
    source = list_clips(tmp_path / "there", names, test=test)
    assert {i.id: i.label for i in source.items if i.id in names[-2:]} == {
        "xyz.mp4": 0,
        "other.mp4": -1,
    }
    assert source.splits["test"] == ["xyz.mp4", "other.mp4"]
    source = list_clips(tmp_path / "not", LAYOUTS["flat"], test=test)
    assert set(source.splits) == {"train", "val"}
    assert source.notes[0].startswith("test: 2 of 2 listed clips (100.0%) are not in")


BAD = [
    ({"train": ""}, r"train.csv:1: needs the columns label, youtube_id"),
    ({"train": HEADER}, r"train.csv: is empty"),
    ({"train": "a,b,c\n1,2,3\n"}, r"train.csv:1: needs the columns .* has `a,b,c`"),
    ({"val": TEST}, r"val.csv:1: needs the columns label"),
    ({"train": TRAIN + ",abc,1,2,train,0\n"}, r"train.csv:4: needs label,youtube_id"),
    ({"train": TRAIN + "run,abc,x,2,train,0\n"}, r"train.csv:4: .* has `run,abc,x,2"),
    ({"train": TRAIN + "run,abc\n"}, r"train.csv:4: needs label,youtube_id,seconds"),
    ({"train": TRAIN + 'run,"abc\n' + "x\n" * 99}, r"train.csv:103: needs label"),
    ({"train": TRAIN + 'run,"abc' + "x" * 200_000}, r"train.csv:4: field larger"),
    (
        {"val": VAL + "air druming,abc,1,2,val,0\n"},
        "val.csv:3: class 'air druming' is not in the train list, .*mean 'air drumming'",
    ),
    ({"kinetics_val": VAL}, r"kinetics_val.csv or .*/val.csv\? needs one"),
    ({"train": None, "val": None, "others": "x"}, r"no list in it, needs train.csv"),
]


@pytest.mark.parametrize(("files", "message"), BAD, ids=[text for _, text in BAD])
def test_bad_lists(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as caught:
        list_clips(tmp_path, LAYOUTS["flat"], **files)
    assert "\n" not in str(caught.value)


def test_a_single_list_must_say_which_split(tmp_path):
    videos = touch(tmp_path, *LAYOUTS["flat"])
    touch(tmp_path, "all.csv", text=VAL.replace(",val,", ",holdout,"))
    touch(tmp_path, "some.csv", text="label,youtube_id,time_start,time_end\n")
    for file, message in [
        ("all", "all.csv:2: .*holdout"),
        ("some", "some.csv:1: needs"),
    ]:
        flags = ["--videos", videos, "--lists", f"{videos}/{file}.csv"]
        with pytest.raises(UserError, match=message):
            make_source(kinetics400.Builder, *flags)


def test_too_few_clips(tmp_path):
    for names, flags, message in [
        (["a.mp4"], ["--min_found", "0"], "train.csv:2: none of the 3 listed clips is"),
        (
            LAYOUTS["flat"][:2],
            [],
            r"val: 0 of 1 listed clips .*--min_found=0.5 needs 50%",
        ),
        (LAYOUTS["flat"][:1], ["--min_found", "0.6"], "train: 1 of 2 listed clips are"),
        (["notes.txt"], [], "needs videos in it"),
    ]:
        with pytest.raises(UserError, match=message):
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            list_clips(folder, names, *flags)
    source = list_clips(tmp_path / "x", LAYOUTS["flat"][:2], "--min_found", "0")
    assert set(source.splits) == {"train"}
    with pytest.raises(UserError, match=r"--min_found=2: 2\.0 is not a number in"):
        prepare_in(tmp_path, "kinetics400", "--min_found=2")


@pytest.mark.parametrize(
    ("name", "like"), [("kinetics700", "kinetics400"), ("ucf-101", "ucf101")]
)
def test_an_unknown_data_set_is_answered_with_the_closest(capsys, name, like):
    code, _, (line,) = run_main(capsys, name)
    assert code == 2
    assert line.startswith(
        f"error: data set {name!r}: needs one of boxes, flow, got10k, hmdb51,"
    )
    assert line.endswith(f"did you mean {like}?")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("kinetics400", 400),
        ("kinetics600", 600),
        ("kinetics700_2020", 700),
        ("my", 400),
    ],
)
def test_how_many_classes_are_expected(tmp_path, name, count):
    videos = touch(tmp_path / "v", *LAYOUTS["flat"])
    flags = ["--videos", videos, "--lists", make_lists(tmp_path)]
    builder = kinetics400.Builder(
        arguments=kinetics400.Builder.read_flags(*flags), name=name, data_dir=tmp_path
    )
    assert builder.expected_classes == count


def test_what_to_type_for_a_data_set_that_is_not_prepared(tmp_path):
    for name, command in [
        ("kinetics400", "prepare kinetics400 --videos DIR --lists DIR"),
        ("kinetics700", "prepare kinetics400 --name kinetics700 --videos DIR --lists"),
        ("something_something_v1", "prepare something_something_v1 --videos DIR --li"),
        ("mine", "prepare video_folder --name mine --videos DIR"),
    ]:
        with pytest.raises(UserError, match=command):
            records.open_records(name, "train", str(tmp_path))
