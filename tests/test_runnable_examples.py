"""examples/: they run, and their new task draws what it says."""

import itertools
import json
import pathlib

import jax
import matplotlib as mpl
import numpy as np
import pytest

from ctp_jax import modules
from examples import jigsaw, own_head
from tests import own_videos
from tests.tasks import made_clips

NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "features.ipynb"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("run") / "encoder"
    own_videos.make_run(place)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_videos.make_files(tmp_path_factory.mktemp("videos"))[0].parents[1]


def test_the_notebook(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RUN", str(run))
    monkeypatch.delenv("VIDEOS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mpl, "get_backend", mpl.get_backend)
    mpl.use("agg")
    names = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None
            exec("".join(cell["source"]), names)  # noqa: S102
    said = capsys.readouterr().out
    assert "(10, 8, 56, 56, 3) (10, 144)" in said and said.count("is most like") == 6
    np.testing.assert_allclose(np.diag(names["similarity"]), 1, rtol=1e-5)
    names["plt"].close("all")


def test_a_head_of_ones_own_learns(run, folder, capsys):
    folder = str(folder)
    accuracy = own_head.train(run, folder, steps=12, batch_size=4, rate=0.01)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("of 1 held-out videos, 2 classes") and 0 <= accuracy <= 1
    assert float(lines[-2].split()[-1]) < 0.69  # chance


def test_the_quarters_change_places():
    modules.allow("examples.jigsaw")
    config = jigsaw.get_config("small")
    config.model.name = "tests.tiny_network"
    task = jigsaw.Task(config)
    batch = dict(made_clips.make_batch(task, train=True))
    labels = [0, 1, 9, 23]
    whole = super(jigsaw.Task, task).draw(batch)
    drawn = task.draw({**batch, "plan": {"label": np.array(labels)}})
    half = config.clip.size // 2
    parts = [np.s_[:half, :half], np.s_[:half, half:], np.s_[half:, :half]]
    parts.append(np.s_[half:, half:])
    orders = list(itertools.permutations(range(4)))
    for row, label in enumerate(labels):
        for place, source in enumerate(orders[label]):
            shown = np.asarray(drawn)[row, :, :, *parts[place]]
            np.testing.assert_array_equal(
                shown, np.asarray(whole)[row, :, :, *parts[source]]
            )
    assert batch["plan"]["label"].shape == (4,)
    variables = jax.jit(task.init)(jax.random.key(0), batch)
    assert jax.eval_shape(task.predict, variables, batch)["logits"].shape == (4, 1, 24)
