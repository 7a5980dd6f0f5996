"""The Dockerfiles are not built here: they are linted, and what they name exists."""

import configparser
import fnmatch
import re
import subprocess

import pytest
import yaml

from tests.launch import starting

FILES = sorted((starting.LAUNCH / "docker").glob("*.Dockerfile"))
EXTRAS = {"cpu": ["data"], "cuda": ["data", "cuda"], "tpu": ["data", "tpu"]}

every = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def instructions(path):
    """(keyword, the rest) of each instruction, continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", path.read_text()).replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]


def ignored(path):
    """Whether .dockerignore keeps a path out: the last line that fits decides."""
    out = False
    for line in (starting.ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keep, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        parts = path.split("/")
        # A pattern that fits a folder fits what is in it; `*` fits no slash.
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if pattern.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        else:
            depth = pattern.count("/")
            fits = any(
                fnmatch.fnmatch(head, pattern)
                for head in heads
                if head.count("/") == depth
            )
        out = not keep if fits else out
    return out


def test_there_is_one_for_each():
    assert {path.stem for path in FILES} == set(EXTRAS)


@every
def test_hadolint(path):
    done = subprocess.run(
        [starting.tool("hadolint"), path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@every
def test_what_is_copied_is_there(path):
    copied = []
    for keyword, rest in instructions(path):
        if keyword == "COPY":
            *sources, _ = rest.split()
            copied += sources
    for source in copied:
        assert (starting.ROOT / source).exists() and not ignored(source), source
    # All that a run needs, and what the installation reads.
    needed = {"ctp_jax", "configs", "setup.cfg", "pyproject.toml", "README.md"}
    assert needed | {"LICENSE", "NOTICE"} <= set(copied)


@every
def test_the_extra_exists(path):
    setup = configparser.ConfigParser()
    setup.read(starting.ROOT / "setup.cfg")
    (install,) = [r for k, r in instructions(path) if k == "RUN" and "pip inst" in r]
    extras = re.search(r'--editable "\.\[([\w,]+)\]"$', install).group(1).split(",")
    assert extras == EXTRAS[path.stem]
    assert set(extras) <= set(setup["options.extras_require"])


@every
def test_dependencies_come_before_the_code(path):
    """Otherwise each change of the code would install all packages again."""
    lines = [f"{keyword} {rest}" for keyword, rest in instructions(path)]
    install = next(i for i, line in enumerate(lines) if "pip install" in line)
    assert lines.index("COPY ctp_jax ctp_jax") > install


@every
def test_it_runs_as_somebody_and_gets_signals(path):
    found = instructions(path)
    uid = next(re.search(r"--uid (\d+)", r)[1] for k, r in found if "useradd" in r)
    assert uid != "0" and [r for k, r in found if k == "USER"] == [uid]
    (entry,) = [rest for keyword, rest in found if keyword == "ENTRYPOINT"]
    # The form of a list: a shell in between would not pass SIGTERM on.
    assert yaml.safe_load(entry) == ["tini", "--", "python", "-m", "ctp_jax.main"]


def test_the_one_for_the_cpu_asks_for_large_pages():
    path = starting.LAUNCH / "docker/cpu.Dockerfile"
    environ = {k: v for k, v in instructions(path) if k == "ENV"}["ENV"].split()
    assert f"GLIBC_TUNABLES={starting.LARGE_PAGES}" in environ


def test_what_stays_outside():
    for path in ("runs/a/config.json", ".venv/bin/python", ".git/HEAD", "data/x.avi"):
        assert ignored(path), path
    assert ignored("ctp_jax/models/__pycache__/heads.cpython-312.pyc")
    for path in ("ctp_jax/report/templates/run.html", "configs/common.py"):
        assert not ignored(path), path
