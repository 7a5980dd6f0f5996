"""The ways in which people write lists of videos and their classes."""

import unicodedata

import pytest

from ctp_jax.errors import UserError
from ctp_jax.prepare.builders import video_folder
from tests.prepare.make_sources import make_source, touch

FILES = ["brushing hair/v 1.mp4", "yo yo/drinking (31).mp4", "caf\u00e9/b 2 3.avi"]
FORMS = {
    "class": "brushing hair/v 1.mp4 1\nyo yo/drinking (31).mp4 2\ncaf\u00e9/b 2 3.avi 3\n",
    "frames and class, from 0": (
        "brushing hair/v 1.mp4 25 0\nyo yo/drinking (31).mp4 7 1\ncaf\u00e9/b 2 3.avi 9 2\n"
    ),
    "names alone": "\n\n".join(FILES),
    "no endings": "brushing hair/v 1 1\nyo yo/drinking (31) 2\ncaf\u00e9/b 2 3\n",
    "Windows": "D:\\data\\brushing hair\\v 1.mp4\r\n\r\nD:\\data\\yo yo\\drinking (31).mp4"
    "\r\nD:\\data\\caf\u00e9\\b 2 3.avi\r\n",
    "of another machine": "".join(f"/mnt/x/videos/{name} 4\n" for name in FILES[:1])
    + "./yo yo/drinking (31).mp4\n/data/.cache/caf\u00e9/b 2 3.avi\n",
    "a spreadsheet's": "\ufeff"
    + "".join(f'"{name}",{i}\r\n' for i, name in enumerate(FILES, 5)),
    "comments and hidden files": "# made by me\n#by me\n"
    + "\n".join(FILES)
    + "\nyo yo/._drinking (31).mp4 2\n",
    "decomposed": unicodedata.normalize("NFD", "\n".join(FILES)),
    "tabs": "".join(f"{name}\t{i}\n" for i, name in enumerate(FILES)),
}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_lists(tmp_path, form, encoding):
    """However it is written, a list names these three videos of three classes."""
    text = FORMS[form]
    if encoding == "latin-1" and not text.isascii():
        text = unicodedata.normalize("NFC", text.removeprefix("\ufeff"))
    videos = touch(
        tmp_path / "videos", *FILES, "yo yo/._drinking (31).mp4", "yo yo/x.mp4"
    )
    (tmp_path / "train.txt").write_bytes(text.encode(encoding))
    flags = ["--videos", videos, "--train_list", str(tmp_path / "train.txt")]
    source = make_source(video_folder.VideoFolder, *flags)
    assert sorted(source.splits["train"]) == sorted(FILES)
    names = {item.id: source.class_names[item.label] for item in source.items}
    want = {name: name.partition("/")[0] for name in FILES}
    assert names == want


def test_classes_of_lists(tmp_path):
    """By folder; by number if there are no such folders; with the names of classInd.txt."""
    videos = touch(
        tmp_path / "videos", "train/a.mp4", "train/b.mp4", "c.mp4", "Run/d.mp4"
    )
    lists = tmp_path / "lists"

    def classes(text, *, index=None):
        for name in ("trainlist01.txt", "classInd.txt"):
            (lists / name).unlink(missing_ok=True)
        touch(lists, "trainlist01.txt", text=text)
        if index:
            touch(lists, "classInd.txt", text=index)
        flags = ["--videos", videos, "--lists", str(lists)]
        source = make_source(video_folder.VideoFolder, *flags)
        return {i.id: (*source.class_names, "")[i.label] for i in source.items}

    assert classes("train/a.mp4 10\ntrain/b.mp4 9\nc.mp4 9\n") == {
        "train/a.mp4": "10",
        "train/b.mp4": "09",
        "c.mp4": "09",
    }
    assert classes("train/a.mp4\nRun/d.mp4\n") == {
        "train/a.mp4": "",
        "Run/d.mp4": "Run",
    }
    index = "1 go home\n2 Run\n"
    want = {"train/a.mp4": "go home", "c.mp4": "Run", "Run/d.mp4": "Run"}
    assert classes("train/a.mp4 1\nc.mp4 2\nRun/d.mp4\n", index=index) == want
    assert classes("train/a.mp4 0\nc.mp4 1\nRun/d.mp4 1\n", index=index) == want
    with pytest.raises(UserError, match="'Run' has number 2 in classInd.txt, not 1"):
        classes("Run/d.mp4 1\n", index=index)
