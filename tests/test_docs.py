"""The task and the evaluator of docs/tasks.md are what the page says: they run."""

import json
import pathlib
import re

import pytest

from ctp_jax import cli, visualize
from ctp_jax.train import loop

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "tasks.md"


@pytest.mark.slow
def test_a_task_outside_the_package_in_two_files(moving_shapes, tmp_path, monkeypatch):
    task, config_file, evaluator = re.findall(
        r"^```python\n(.*?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    folder = tmp_path / "my_tasks"
    folder.mkdir()
    for name, text in (
        ("__init__", ""),
        ("arrow", task),
        ("arrow_config", config_file),
        ("zeros", evaluator),
    ):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = "small,runlocal,data=moving_shapes,evaluate=my_tasks.zeros"
    config = cli.load_config(f"{folder / 'arrow_config.py'}:{arguments}")
    config.data.data_dir, config.steps = moving_shapes(12, 6), 2
    config.model.name = "tests.tiny_network"  # for time
    workdir = tmp_path / "run"
    results = loop.train(config, workdir)
    assert 0 <= results["top1"] <= 1 and 0 <= results["share_of_zeros"] <= 1
    about = json.loads((workdir / "encoder" / "encoder.json").read_text())
    assert about["provenance"]["task"] == "my_tasks.arrow"
    drawn = visualize.draw(config, 3, str(workdir))
    assert drawn.clips.shape == (3, 8, 56, 56, 3)
    for name in drawn.names:
        assert re.search(r": (forwards|backwards), predicted: (for|back)wards$", name)
