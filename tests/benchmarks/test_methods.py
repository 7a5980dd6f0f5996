"""The list of methods that are timed beside each other."""

import pathlib

import configs
from benchmarks import methods


def test_all_pretext_tasks_are_listed_and_have_a_small_variant():
    folder = pathlib.Path(configs.__file__).parent
    found = {
        p.stem for p in folder.glob("*.py") if "parse_pretext(arg)" in p.read_text()
    }
    assert found == set(methods.METHODS)
    for name in methods.METHODS:
        config = methods.make_config(name, "mine")
        small = methods.make_config("ctp", "mine")
        assert config.batch_size == small.batch_size == 16
        assert config.steps == small.steps and config.model.width == small.model.width
