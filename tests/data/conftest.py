"""Fixtures of tests of injured data sets."""

import shutil

import pytest

from tests.data import make_injuries as injuries
from tests.data.injured_sets import STEPS, open_set, take


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A data set that nothing is wrong with."""
    data_dir = tmp_path_factory.mktemp("sound")
    injuries.prepare(data_dir)
    return data_dir


@pytest.fixture(scope="session")
def sound_batches(sound):
    """Its batches: {encoding: list}."""
    return {e: take(open_set(sound, e), STEPS) for e in ("jpeg", "png")}


@pytest.fixture
def injured(sound, tmp_path):
    """A copy to injure."""
    return shutil.copytree(sound, tmp_path / "injured")
