"""Whole runs of the toy task: resume, stop, NaN, init_from."""

import json
import os
import shutil
import signal
import types

import jax
import numpy as np
import pytest

from ctp_jax.data import selection
from ctp_jax.errors import UserError
from ctp_jax.train import loop
from ctp_jax.train.checkpoints import export, init_from, pytrees
from tests import toy_run
from tests.toy_data import EVAL_EXAMPLES, ToyPipeline, opener, toy_config
from tests.train.distributed.toy_processes import assert_same_run, last_state, lines


class Killed(BaseException):
    """Simulates kill -9: nothing catches it."""


def at_step(step, action):
    def hook(now, batch):
        if now == step:
            action(batch)

    return opener(hook)


def kill(batch):
    raise Killed


def terminate(batch):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    loop.train(toy_config(), workdir, opener())
    return workdir


def test_a_whole_run(whole_run, capsys):
    steps, leaves = last_state(whole_run)
    assert steps == [8, 12]
    names = " ".join(leaves)
    assert all(part in names for part in ("networks", "queue", "trace", "norm"))
    assert "ema" not in names
    kinds = [(line["kind"], line["step"]) for line in lines(whole_run)]
    assert kinds == [
        ("eval", 4),
        ("train", 5),
        ("eval", 8),
        ("train", 10),
        ("train", 12),
        ("eval", 12),
    ]
    arrays = np.load(whole_run / "evaluation.npz")
    assert arrays["indices"].tolist() == list(range(EVAL_EXAMPLES))
    config = json.loads((whole_run / "config.json").read_text())
    assert config["optimizer"]["milestones"] == [1, 2]
    assert "jax" in json.loads((whole_run / "versions.json").read_text())
    losses = [line["loss"] for line in lines(whole_run) if line["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_running_a_finished_run_again_says_so(whole_run, capsys):
    before = lines(whole_run)
    results = loop.train(toy_config(), whole_run, opener())
    said = " ".join(capsys.readouterr().out.split())  # it may be folded
    assert "this run is finished, 12 steps" in said
    assert results["videos"] == EVAL_EXAMPLES and lines(whole_run) == before


def test_back_at_its_length_a_run_is_what_it_was(whole_run, tmp_path):
    """It was begun as a longer one, and stopped before a step of that."""
    shutil.copytree(whole_run, tmp_path / "run")
    config = (whole_run / "config.json").read_text()
    longer = json.loads(config) | {"steps": 40}
    (tmp_path / "run" / "config.json").write_text(json.dumps(longer))
    loop.train(toy_config(), tmp_path / "run", opener())
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(
        config
    )
    # A shorter command changes nothing of what is finished.
    loop.train(toy_config(steps=6), tmp_path / "run", opener())
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(
        config
    )


def test_a_finished_run_says_what_it_does_not_evaluate(whole_run, tmp_path, capsys):
    shutil.copytree(whole_run, tmp_path / "run")
    other = toy_config(**{"data.eval_split": "other"})
    results = loop.train(other, tmp_path / "run", opener())
    said = " ".join(capsys.readouterr().out.split())
    assert "of another evaluation (data.eval_split" in said and "-> other" in said
    assert results["accuracy"] == lines(whole_run)[-1]["accuracy"]
    # Nor does a run of no steps put other numbers beside them.
    other.update(steps=0, epochs=0.0)
    with pytest.raises(
        UserError, match="has another config: data.eval_split .*workdir"
    ):
        loop.train(other, tmp_path / "run", opener())


def test_without_its_checkpoints_it_is_still_finished(whole_run, tmp_path, capsys):
    shutil.copytree(whole_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    loop.train(toy_config(), tmp_path / "run", opener())
    assert "is finished, 12 steps" in " ".join(capsys.readouterr().out.split())
    assert lines(tmp_path / "run") == lines(whole_run)


def test_killed_and_resumed_is_the_same_run(whole_run, tmp_path):
    for step in (2, 6, 11):  # before the first save, between saves, near the end
        with pytest.raises(Killed):
            loop.train(toy_config(), tmp_path, at_step(step, kill))
    loop.train(toy_config(), tmp_path, opener())
    assert_same_run(whole_run, tmp_path)


def test_other_videos_are_said_on_resume_and_a_short_run_at_its_start(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(selection, "overlaps", lambda *_: [])

    class Pipeline(ToyPipeline):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            self.records = types.SimpleNamespace(digest=lambda: f"{names} {boxes}")

    def open_pipeline(config, spec, plan, train, *share):
        return (Pipeline if train else ToyPipeline)(config, train, *share)

    fields = {"optimizer.warmup_steps": 6}
    runs = [(2, 1, "", 0), (5, 2, "", 1), (6, 2, "other", 1)]
    for steps, names, boxes, other in runs:
        loop.train(toy_config(steps=steps, **fields), tmp_path, open_pipeline)
        out = capsys.readouterr().out
        assert out.count("note: the training videos are not those") == other
        assert out.count("within config.optimizer.warmup_steps = 6") == 1
        assert "saves time" not in out
    fields["eval_every"] = 0.05  # of an epoch of four steps
    loop.train(toy_config(steps=8, **fields), tmp_path, open_pipeline)
    out = capsys.readouterr().out  # the same videos again, and more steps
    assert "warmup_steps" not in out and "the training videos" not in out
    assert "note: 40 evaluations, one every 0.2 steps (config.eval_every = 0.05" in out


def test_resumed_with_every_option_of_the_optimizer(tmp_path, capsys):
    """AdamW with gradient accumulation and a moving average, which is exported."""
    fields = {"optimizer.name": "adamw", "optimizer.accumulate": 2, "ema": 0.9}
    fields |= {"optimizer.learning_rate": 0.01, "optimizer.weight_decay": 0.1}
    fields |= {"optimizer.exclude_norms_and_biases": True}
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    loop.train(toy_config(**fields), straight, opener())
    assert "moving average" in capsys.readouterr().out
    with pytest.raises(Killed):
        loop.train(toy_config(**fields), cut, at_step(6, kill))
    loop.train(toy_config(**fields), cut, opener())
    assert_same_run(straight, cut)
    tree = pytrees.load(straight / "checkpoints/12/state")
    average, last = (tree[name]["encoder"]["dense"] for name in ("ema", "params"))
    assert np.abs(average["kernel"] - last["kernel"]).max() > 1e-3
    for encoder in (
        export.load_encoder(straight),
        init_from.read(straight / "checkpoints/12"),
    ):
        jax.tree.map(np.testing.assert_array_equal, encoder.params["dense"], average)
        jax.tree.map(np.testing.assert_array_equal, encoder.head, tree["ema"]["head"])
    # Another average would be another run.
    fields["ema"] = 0.0
    with pytest.raises(UserError, match=r"ema/\S+ is float32.*; .* ema 0\.9 -> 0\.0"):
        loop.train(toy_config(**fields), straight, opener())


def test_the_average_begins_with_what_a_run_starts_from(whole_run, tmp_path):
    config = toy_config(init_from=str(whole_run), steps=1, seed=5, ema=0.5)
    config.optimizer.learning_rate = 1e-12
    loop.train(config, tmp_path, opener())
    old, new = export.load_encoder(whole_run), export.load_encoder(tmp_path)
    np.testing.assert_allclose(
        new.params["dense"]["kernel"], old.params["dense"]["kernel"], atol=1e-9
    )


def test_sigterm_saves_and_says_how_to_go_on(whole_run, tmp_path, capsys):
    handler = signal.getsignal(signal.SIGTERM)
    loop.train(toy_config(), tmp_path, at_step(6, terminate))
    out = capsys.readouterr().out
    assert "stopped by SIGTERM after step 7/12" in out and "same command" in out
    assert last_state(tmp_path)[0] == [4, 7]
    assert not (tmp_path / "encoder").exists()
    assert signal.getsignal(signal.SIGTERM) == handler
    loop.train(toy_config(), tmp_path, opener())
    assert "resuming from the checkpoint of step 7/12" in capsys.readouterr().out
    # Step 7 is between two log lines: its sums are restored from the checkpoint.
    assert_same_run(whole_run, tmp_path)


def fails(batch):
    raise UserError("no more videos can be read")


def fails_in_evaluation(config, spec, plan, train, *share):
    return toy_run.Watched(config, train, *share, evaluating="bug")


@pytest.mark.parametrize(
    "opened,error,steps",
    [
        (fails_in_evaluation, "a mistake of ours", [4]),
        (at_step(6, fails), "no more videos", [4, 6]),
    ],
)
def test_a_failure_around_the_steps_costs_none(
    whole_run, tmp_path, capsys, opened, error, steps
):
    with pytest.raises((UserError, ValueError), match=error):
        loop.train(toy_config(), tmp_path, opened)
    assert f"step {steps[-1]}/12 is saved" in capsys.readouterr().out
    assert last_state(tmp_path)[0] == steps
    loop.train(toy_config(), tmp_path, opener())
    assert_same_run(whole_run, tmp_path)


@pytest.mark.parametrize("log_every", [1, 100])
def test_nan_stops_before_it_is_saved(tmp_path, log_every):
    def poison(batch):
        batch["plan"]["poison"][:] = 1

    config = toy_config(log_every=log_every)
    message = "not finite at step 7; the last good checkpoint is step 4"
    with pytest.raises(UserError, match=message):
        loop.train(config, tmp_path, at_step(6, poison))
    assert last_state(tmp_path)[0] == [4]


def test_nan_before_anything_is_learnt_is_not_for_the_learning_rate(tmp_path):
    def poison(batch):
        batch["plan"]["poison"][:] = 1

    message = "at step 1; there is no checkpoint yet: look at the clips"
    with pytest.raises(UserError, match=message):
        loop.train(toy_config(), tmp_path, at_step(0, poison))


def test_init_from_an_exported_encoder(whole_run, tmp_path, capsys):
    config = toy_config(init_from=str(whole_run), steps=1, seed=5)
    config.optimizer.learning_rate = 1e-12
    tmp_path /= "a_long_name" * 9
    loop.train(config, tmp_path, opener())
    out = capsys.readouterr().out
    for line in out.splitlines():  # a path at its end may be longer
        assert len(line) <= 100 or "/" in line.split()[-1], line
    out = unfolded(out)
    loaded = next(line for line in out.splitlines() if "loaded" in line)
    for name in ("params/encoder (4", "batch_stats (2", "model_state/networks (4"):
        assert name in loaded
    (random,) = [line for line in out.splitlines() if "stays random" in line]
    assert "params/head" in random and "encoder" not in random
    old, new = export.load_encoder(whole_run), export.load_encoder(tmp_path)
    np.testing.assert_allclose(
        new.params["dense"]["kernel"], old.params["dense"]["kernel"], atol=1e-9
    )
    # On resume it is not read again, but it remains part of the config of the run.
    loop.train(config, tmp_path, opener())
    assert "is finished" in capsys.readouterr().out
    config.init_from = ""
    with pytest.raises(UserError, match=r"another config: init_from .* ->"):
        loop.train(config, tmp_path, opener())
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept["init_from"] == str(whole_run)


def test_export_is_made_up_for(whole_run, tmp_path, capsys):
    # Killed between the last save and the export.
    shutil.copytree(whole_run, tmp_path, dirs_exist_ok=True)
    (tmp_path / "encoder/encoder.json").unlink()
    loop.train(toy_config(), tmp_path, opener())
    assert export.load_encoder(tmp_path).provenance["steps"] == 12
    assert_same_run(whole_run, tmp_path)


def test_workdir_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir=.*file"):
        loop.train(toy_config(), tmp_path / "file", opener())


def unfolded(out):
    """Without the line breaks within long lines."""
    return out.replace("\n    ", " ")


def loaded_from(out):
    """The printed lines about config.init_from."""
    return [
        line for line in unfolded(out).splitlines() if line.startswith("init_from ")
    ]


def test_killed_before_the_first_save_it_starts_from_there_again(
    whole_run, tmp_path, capsys
):
    """The folder of checkpoints exists, but it is empty."""
    config = toy_config(init_from=str(whole_run), seed=5, steps=5)
    loop.train(config, tmp_path / "straight", opener())
    for killed_at in (0, 3):
        capsys.readouterr()
        cut = tmp_path / f"cut at {killed_at}"
        with pytest.raises(Killed):
            loop.train(config, cut, at_step(killed_at, kill))
        loop.train(config, cut, opener())
        assert len(loaded_from(capsys.readouterr().out)) == 1 + (killed_at > 0)
        assert_same_run(tmp_path / "straight", cut)


def test_going_on_is_not_starting_from(whole_run, tmp_path, capsys):
    # Otherwise a run from scratch could pass for a pretrained one.
    shutil.copytree(whole_run / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UserError, match="another config: init_from"):
        loop.train(toy_config(init_from=str(tmp_path), steps=13), tmp_path, opener())
    loop.train(toy_config(init_from=str(whole_run), steps=1), tmp_path / "b", opener())
    assert len(loaded_from(capsys.readouterr().out)) == 1
    loop.train(toy_config(init_from=str(whole_run), steps=2), tmp_path / "b", opener())
    out = capsys.readouterr().out
    assert "resuming from the checkpoint of step 1/2" in out
    assert "config.init_from is not read again" in out and not loaded_from(out)


def test_a_run_of_no_steps_evaluates_what_it_starts_from(whole_run, tmp_path, capsys):
    config = toy_config(
        init_from=str(whole_run), init_head=True, steps=0, epochs=0.0, seed=9
    )
    with np.load(whole_run / "evaluation.npz") as arrays:
        expected = lines(whole_run)[-1]["accuracy"], arrays["indices"].tolist()
    for _ in range(2):  # and again: nothing was trained, so it is read again
        results = loop.train(config, tmp_path, opener())
        with np.load(tmp_path / "evaluation.npz") as arrays:
            assert (results["accuracy"], arrays["indices"].tolist()) == expected
            assert arrays["step"] == 0
        out = capsys.readouterr().out
        assert len(loaded_from(out)) == 1 and "eval at step 0" in out
        assert "compiling" not in out and "finished after" not in out
    found = lines(tmp_path)
    assert {(line["kind"], line["step"]) for line in found} == {("eval", 0)}
    other = toy_config(init_from=str(whole_run), steps=0, epochs=0.0, seed=9)
    with pytest.raises(
        UserError, match="init_head True -> False: use another --workdir"
    ):
        loop.train(other, tmp_path, opener())
    assert lines(tmp_path) == found
    assert not (tmp_path / "encoder").exists()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_run_of_no_steps_evaluates_the_run_in_its_workdir(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "run")
    config = toy_config(steps=0, epochs=0.0)
    results = loop.train(config, tmp_path / "run", opener())
    assert results["accuracy"] == lines(whole_run)[-1]["accuracy"]
    assert last_state(tmp_path / "run")[0] == [8, 12]


def test_a_run_of_no_steps_needs_something_to_evaluate(tmp_path):
    config = toy_config(**{"steps": 0, "epochs": 0.0, "data.eval_split": ""})
    with pytest.raises(UserError, match=r"config\.epochs = 0: .*eval_split"):
        loop.train(config, tmp_path, opener())


def test_an_encoder_of_another_run_does_not_finish_this_one(tmp_path, capsys):
    loop.train(toy_config(steps=4), tmp_path, opener())
    (tmp_path / "encoder").rename(tmp_path / "old")
    shutil.rmtree(tmp_path / "checkpoints")
    ours = toy_config(steps=4, seed=5)
    loop.train(ours, tmp_path, opener())
    # As if that had been killed between its last save and the export.
    shutil.rmtree(tmp_path / "encoder")
    (tmp_path / "old").rename(tmp_path / "encoder")
    capsys.readouterr()
    loop.train(ours, tmp_path, opener())
    assert "is finished" not in capsys.readouterr().out
    assert export.load_encoder(tmp_path).provenance["config"]["seed"] == 5


def asked_in_evaluation(config, spec, plan, train, *share):
    return toy_run.Watched(config, train, *share, evaluating="term")


def test_a_stopped_evaluation_is_made_first(whole_run, tmp_path, capsys):
    best = {"keep_checkpoints": 1, "keep_best": 3, "keep_best_by": "accuracy"}
    loop.train(toy_config(**best), tmp_path, asked_in_evaluation)
    assert "stopped by SIGTERM after step 4/12" in capsys.readouterr().out
    assert last_state(tmp_path)[0] == [4] and lines(tmp_path) == []
    loop.train(toy_config(**best), tmp_path, opener())
    assert lines(tmp_path) == lines(whole_run)
    # The evaluation that was made later counts for the step as well.
    assert last_state(tmp_path)[0] == [4, 8, 12]


def test_a_stopped_last_evaluation_is_made_once(tmp_path, capsys):
    config = toy_config(steps=4)
    loop.train(config, tmp_path, asked_in_evaluation)
    assert last_state(tmp_path)[0] == [4] and not (tmp_path / "encoder").exists()
    results = loop.train(config, tmp_path, opener())
    found = lines(tmp_path)
    assert [line["kind"] for line in found] == ["train", "eval"]
    assert results["accuracy"] == found[-1]["accuracy"]
    capsys.readouterr()
    assert loop.train(config, tmp_path, opener()) == results
    said = " ".join(capsys.readouterr().out.split())  # it may be folded
    assert "this run is finished, 4 steps" in said
    assert lines(tmp_path) == found
    # The checkpoint still says that it is to be made, so a longer run makes it again.
    loop.train(toy_config(steps=8), tmp_path, opener())
    assert [line["step"] for line in lines(tmp_path) if line["kind"] == "eval"] == [
        4,
        8,
    ]
    assert lines(tmp_path)[: len(found)] == found
