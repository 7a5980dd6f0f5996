"""The record of a preparation: tells flags apart, and names no folders."""

import os

import pytest

from ctp_jax.errors import UserError
from ctp_jax.prepare import provenance

FLAGS = {"videos": "/home/ann/one/videos", "quality": 90, "lists": "", "name": "x"}


def test_paths_are_told_apart_but_not_written(tmp_path):
    provenance.write(tmp_path, FLAGS, [])
    text = (tmp_path / provenance.FILE).read_text()
    assert "ann" not in text and "/home" not in text and '"videos (digest ' in text
    assert provenance.differences(tmp_path, FLAGS) == ""
    assert provenance.differences(tmp_path, {**FLAGS, "name": "y"}) == ""
    other = provenance.differences(tmp_path, {**FLAGS, "videos": "/home/bob/videos"})
    assert other.startswith("--videos=videos (digest ")
    assert other.endswith("(now /home/bob/videos)")
    assert "--quality=90 (now 80)" in provenance.differences(
        tmp_path, {**FLAGS, "quality": 80}
    )
    provenance.write(tmp_path, {**FLAGS, "lists": "lists"}, [])
    assert provenance.differences(tmp_path, FLAGS).endswith("(now none)")


def test_relative_paths_are_made_absolute_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    provenance.write(tmp_path, {"videos": "videos"}, [])
    here = {"videos": str(tmp_path / "videos")}
    assert provenance.differences(tmp_path, here) == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"flags": 3}', "[" * 100_000, None])
def test_a_broken_record_is_one_line(tmp_path, text):
    path = tmp_path / provenance.FILE
    os.mkfifo(path) if text is None else path.write_text(text)
    with pytest.raises(UserError, match=r"preparation\.json: .*: delete the file"):
        provenance.differences(tmp_path, FLAGS)
