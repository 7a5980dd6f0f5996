"""What a machine lacks or refuses is one line: devices, a home, room, permission."""

import errno
import os
import pathlib
import pwd

import jax
import pytest

from ctp_jax import devices
from ctp_jax.errors import UserError, refusal, refusals
from ctp_jax.storage import files, remote


def test_what_the_system_refuses_is_one_line_with_a_remedy(tmp_path):
    refused = OSError(errno.EMFILE, "Too many open files", "/data/x")
    assert str(refusal(refused)) == (
        "/data/x: too many open files: raise the limit (ulimit -n)"
    )
    # A full disk is that of the place, not of some temporary file.
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        error = OSError(number, os.strerror(number), "/data/x.incomplete")
        assert str(refusal(error, "/data", "2 are kept")).startswith("/data: ")
        assert "; 2 are kept: " in str(refusal(error, "/data", "2 are kept"))
    # TensorFlow and TensorStore have errors of their own, which say it in their text.
    wrapped = ValueError("NOT_FOUND: Error opening x: Too many open files [24]")
    assert "too many open files: raise" in str(refusal(wrapped, "/data"))
    for bug in (KeyError("x"), ValueError("No such file or directory"), OSError("x")):
        assert refusal(bug, "/data") is None
    with pytest.raises(KeyError), refusals("/data"):
        raise KeyError("x")
    with (
        pytest.raises(UserError, match=r"x/y: a part of the path is no folder: name"),
        refusals(tmp_path),
    ):
        (tmp_path / "x").write_text("")
        (tmp_path / "x/y").write_text("")


def test_the_message_names_the_file_and_not_its_temporary_name(tmp_path):
    with pytest.raises(OSError) as caught, files.replacing(tmp_path / "no/x") as new:
        new.write_text("")
    assert caught.value.filename == str(tmp_path / "no/x")


def test_no_devices(monkeypatch):
    def fails():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", fails)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match=r"JAX_PLATFORMS=cuda: .*\(AssertionError\)"):
        devices.check()


@pytest.fixture
def nameless(monkeypatch):
    """A user without a name and without a home; so are the owners of all files."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_there_is_no_cache(nameless, monkeypatch, capsys):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    before = jax.config.jax_compilation_cache_dir
    devices.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
    (line,) = capsys.readouterr().err.splitlines()
    assert "not cached: ~/.cache: no home folder is known" in line


def test_files_of_owners_without_a_name(nameless, tmp_path):
    (tmp_path / "file").write_text("12345")
    assert remote.size(tmp_path / "file") == 5
    with pytest.raises(UserError, match="~/x: no home folder is known"):
        files.absolute("~/x")


def test_the_current_folder_may_be_gone(tmp_path, monkeypatch):
    def gone():
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    with pytest.raises(UserError, match="x: the current folder is deleted"):
        files.absolute("x")
    assert files.absolute(tmp_path) == pathlib.Path(tmp_path)
