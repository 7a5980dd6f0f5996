"""examples/: they run, and their new task draws what it says."""

import contextlib
import importlib
import itertools
import json
import pathlib
import sys
import types

import jax
import matplotlib as mpl
import numpy as np
import pytest

from ctp_jax import modules
from ctp_jax.train import loop
from examples import jigsaw, own_head
from tests.own_videos import made
from tests.tasks import made_clips
from tests.toy_data import opener, toy_config

run, files = made.run, made.files  # fixtures
NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "features.ipynb"


def test_the_notebook(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RUN", str(run[0]))
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


def test_a_head_of_ones_own_learns(run, files, capsys):
    folder = str(files[0].parents[1])
    accuracy = own_head.train(run[0], folder, steps=12, batch_size=4, rate=0.01)
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
    # In one program, so that both are rounded alike.
    whole, drawn = jax.jit(
        lambda batch, plan: (
            super(jigsaw.Task, task).draw(batch),
            task.draw({**batch, "plan": plan}),
        )
    )(batch, {"label": np.array(labels)})
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
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    assert jax.eval_shape(task.predict, variables, batch)["logits"].shape == (4, 1, 24)


@contextlib.contextmanager
def run_of(calls):
    """A client's run: its methods are noted, and its end."""
    log = lambda numbers, step: calls.append((step, numbers))
    yield types.SimpleNamespace(log=log)
    calls.append("end")


def stand_in(name, calls):
    """The part of a client that the example calls, with the client's signatures."""
    client = types.ModuleType(name)
    client.init = lambda *, project, name="", id="", resume="", config: (
        calls.append((project, name or id, config["seed"])) or run_of(calls)
    )
    client.log = lambda numbers, step: calls.append((step, numbers))
    client.finish = lambda: calls.append("end")
    client.set_experiment = lambda project: calls.append(project)
    client.start_run = lambda *, run_name: calls.append(run_name) or run_of(calls)
    client.log_params = lambda fields: calls.append(fields["seed"])
    client.log_metrics = client.log
    return client


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_metrics_are_passed_on(name, tmp_path, monkeypatch):
    """With a stand-in of the client: what it gets is what metrics.jsonl holds."""
    calls = []
    monkeypatch.setitem(sys.modules, name, stand_in(name, calls))
    monkeypatch.delitem(sys.modules, f"examples.log_to_{name}", raising=False)
    example = importlib.import_module(f"examples.log_to_{name}")
    modules.allow(example.__name__)
    config = toy_config(steps=3, log_every=2, metrics_to=example.__name__)
    loop.train(config, tmp_path / "one", opener())
    about = calls if name == "mlflow" else calls[0]
    assert list(about[:3]) == ["ctp_jax", "one", config.seed]
    assert calls[-1] == "end"
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    expected = []
    for line in map(json.loads, lines):
        kind, step = line.pop("kind"), line.pop("step")
        expected.append((step, {f"{kind}/{name}": v for name, v in line.items()}))
    assert [
        c for c in calls if isinstance(c, tuple) and isinstance(c[0], int)
    ] == expected
    assert {step for step, _ in expected} == {2, 3}


def test_a_client_that_fails_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    hook = types.ModuleType("tests.refusing")
    tries = []

    def refuse(step, numbers):
        tries.append(step)
        raise ConnectionError("no route to host")

    hook.pass_on = lambda config, workdir: contextlib.nullcontext(refuse)
    monkeypatch.setitem(sys.modules, hook.__name__, hook)
    modules.allow(hook.__name__)
    config = toy_config(steps=3, log_every=1, metrics_to=hook.__name__)
    loop.train(config, tmp_path, opener())
    said = capsys.readouterr().out
    assert said.count("no more metrics are passed on") == 1 and "no route" in said
    assert tries == [1] and "finished after 3 steps" in said
