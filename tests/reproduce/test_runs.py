"""Which runs tables need: shared ones once, in order of dependency, split into shards."""

import functools
import hashlib
import itertools
import json
import random

import pytest

from ctp_jax import cli
from ctp_jax import config as config_lib
from ctp_jax.errors import UserError
from ctp_jax.flags import Flags
from ctp_jax.reproduce import experiments, runs


def made(*names, **settings):
    """(Runs of these experiments, {name: its cells})."""
    found = runs.Runs(runs.Settings(**settings))
    read = [experiments.read(name) for name in names]
    return found, {each.name: found.cells(each) for each in read}


def only(cells, row, column="UCF"):
    (run,) = cells[row, column]
    return run


def test_a_run_in_several_tables_is_made_once():
    found, cells = made("table1", "table4", "table7", "table9", "table10", "fig6")
    same = {
        only(cells["table1"], "UCF-101, Pre-set (x3)").name,
        only(cells["table4"], "Ours, UCF, R3D").name,
        only(cells["table7"], "8").name,
        only(cells["table9"], "0.8/0.04").name,
        only(cells["table10"], "Speed, 3").name,
        only(cells["table10"], "Scale, 0.025").name,
        only(cells["fig6"], "CtP").name,
    }
    assert len(same) == 1
    # And so is its pretraining, by the command of the README.
    run = found.by_name[same.pop()]
    assert run.needs[0].command("R")[2:-1] == [
        "--config=configs/ucf_r3d.py",
        "--config.seed=0",
        f"--workdir=R/{run.needs[0].name}",
    ]
    assert f"--config.init_from=R/{run.needs[0].name}" in run.command("R")


def test_a_task_of_ones_own_that_changed_makes_other_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    task, sweep = tmp_path / "mine" / "task.py", tmp_path / "sweep.py"
    task.parent.mkdir()
    run = {"config": "configs/rotation.py:small", "task": "mine.task"}
    column = {"config": "configs/finetune_small.py", "metric": "top1"}
    sweep.write_text(f"ROWS = {{'r': {run}}}\nCOLUMNS = {{'c': {column}}}\n")

    def pretraining():
        finetuning = only(made("sweep.py")[1]["sweep"], "r", "c")
        return finetuning.needs[0]

    task.write_text("Task = 1\n")
    first = pretraining()
    digest = hashlib.sha256(b"Task = 1\n").hexdigest()[:10]
    assert first.basis["task (code)"] == digest
    assert pretraining().name == first.name
    task.write_text("Task = 2\n")
    assert pretraining().name != first.name
    assert pretraining().command("R")[:-2] == first.command("R")[:-2]
    task.unlink()  # the run says what is missing
    assert "task (code)" not in pretraining().basis


def test_runs_are_one_where_their_configs_are():
    """Against the effective configs, compared field by field, by brute force."""
    found = runs.Runs(runs.Settings(seeds=(0,)))
    everything = []
    for name in ("table1", "table2", "table7", "table10"):
        for each in found.cells(experiments.read(name)).values():
            everything += [*each, *(needed for run in each for needed in run.needs)]

    @functools.cache
    def fields_of(run):
        flat = config_lib.flatten(config_lib.as_dict(run.config))
        for field, value in run.overrides.items():
            if isinstance(value, runs.Run):
                flat[field] = fields_of(value)
        return json.dumps(flat, sort_keys=True)

    for one, other in itertools.combinations(everything, 2):
        assert (one.name == other.name) == (fields_of(one) == fields_of(other))


def test_the_command_has_the_config_that_the_name_is_of(monkeypatch):
    """The flags are parsed as `ctp_jax.main` does."""
    found, _ = made(
        "table9", "fig4", "table5", seeds=(3,), overrides={"batch_size": "8"}
    )
    monkeypatch.chdir(experiments.checkout())
    for run in random.Random(0).sample(sorted(found.by_name.values(), key=str), 8):
        values = Flags()
        config = cli.define_config(values)
        *arguments, workdir, stopped = run.command("R")[2:]
        monkeypatch.setattr("sys.argv", ["main", *arguments])
        cli.parse(["main", *arguments], values, "")
        parsed = config_lib.flatten(config.value)
        expected = config_lib.flatten(run.config)
        for field, value in run.overrides.items():
            if isinstance(value, runs.Run):
                expected[field] = f"R/{value.name}"
        assert parsed == expected
        assert (parsed["seed"], parsed["batch_size"]) == (3, 8)
        assert (workdir, stopped) == (
            f"--workdir=R/{run.name}",
            "--stopped_exit_code=75",
        )


def test_what_changes_no_results_makes_no_other_run():
    _, plain = made("table7")
    _, other = made("table7", data_dir="/elsewhere", overrides={"log_every": "1"})
    assert only(plain["table7"], "8").name == only(other["table7"], "8").name
    _, seed = made("table7", seeds=(1,))
    assert only(plain["table7"], "8").name != only(seed["table7"], "8").name
    # But in a figure of curves, how often is evaluated is what it is about.
    _, small = made("fig6", "table1", small=True)
    curves = only(small["fig6"], "CtP")
    assert curves.name != only(small["table1"], "UCF-101, Pre-set (x3)").name
    assert curves.config.eval_every == 1.0


def test_order_against_brute_force():
    """Every run after all that it needs, each once; for any order of the input."""
    found, _ = made("table4", "table1", small=True)
    expected = set()

    def gather(run):
        expected.add(run)
        for needed in run.needs:
            gather(needed)

    for run in found.by_name.values():
        gather(run)
    for seed in range(3):
        given = list(found.by_name.values())
        random.Random(seed).shuffle(given)
        ordered = runs.in_order(given)
        assert len(ordered) == len(expected) and set(ordered) == expected
        for place, run in enumerate(ordered):
            assert all(needed in ordered[:place] for needed in run.needs)
    # CoCLR is two runs deep.
    assert max(run.level for run in ordered) == 2


def test_seeds_and_splits_make_runs():
    _, cells = made("table1", seeds=(0, 1, 2), splits=(1, 2))
    cell = cells["table1"]["UCF-101, Pre-set (x3)", "UCF"]
    assert len(cell) == 6
    assert {run.config.data.split for run in cell} == {"train01", "train02"}
    # A seed has its own pretraining, which is on split 1 for all splits.
    assert len({run.needs[0] for run in cell}) == 3
    assert {run.needs[0].config.seed for run in cell} == {0, 1, 2}
    assert {run.needs[0].config.data.split for run in cell} == {"train01"}


def test_small_forms_are_on_the_data_that_are_chosen():
    data = {"": "mine", "hmdb51": "other:train01:test01", "got10k": "boxes"}
    found, cells = made("table1", small=True, data=data)
    for run in found.by_name.values():
        assert run.config.model.width == 0.125 and run.config.model.name == "r3d10"
    ucf, hmdb = (cells["table1"]["None, -", column][0] for column in ("UCF", "H51"))
    assert (ucf.config.data.name, ucf.config.data.split) == ("mine", "train")
    assert (hmdb.config.data.name, hmdb.config.data.split) == ("other", "train01")
    real = only(cells["table1"], "GOT-10k, Real annotation").needs[0].config
    assert (real.data.name, real.truth.real, real.truth.preset) == ("boxes", 1, 0)
    teacher = only(cells["table1"], "UCF-101, Teacher tracker").needs[0].config
    assert teacher.data.name == "mine_tracks" and teacher.truth.teacher == 1
    _, cells = made("table3", small=True)
    assert "no ImageNet weights" in cells["table3"]["R3D, Supervised, ImageNet", "UCF"]
    _, cells = made("table10", small=True)
    for value in (0.010, 0.100):
        run = only(cells["table10"], f"Scale, {value:.3f}").needs[0]
        assert run.config.game.size_change == 2 * value


def test_every_method_sees_as_many_frames():
    _, cells = made("methods:data=moving_shapes,clips=4800", seeds=(0,))
    (cells,) = cells.values()
    clips = {"vcop": 3, "vcp": 3, "prp": 2, "temptrans": 4, "moco": 2, "cep": 4}
    for method in ("ctp", "rotation", "memdpc", *clips):
        (run,) = cells[method, "moving_shapes k-NN"]
        config = run.needs[0].config
        frames = 8 * clips.get(method, 1) if method != "memdpc" else 6 * 3
        seen = config.steps * config.batch_size * frames
        assert abs(seen - 4800 * 8) <= config.batch_size * frames / 2
        assert config.model == cells["ctp", "moving_shapes k-NN"][0].config.model or (
            config.model.name == "r3d10" and config.model.width == 0.125
        )
    # CoCLR's three runs share them.
    (run,) = cells["coclr", "moving_shapes k-NN"]
    three = [run.needs[0], *run.needs[0].needs]
    assert len(three) == 3
    seen = sum(each.config.steps * each.config.batch_size * 2 * 8 for each in three)
    assert abs(seen - 4800 * 8) <= 3 * 16 * 2 * 8


def test_methods_with_other_rates_beside_their_own():
    _, cells = made(
        "methods:data=moving_shapes,methods=moco,rates=1e-3+3e-3", seeds=(0,)
    )
    (cells,) = cells.values()
    names = "moco", "moco, rate 1e-3", "moco, rate 3e-3"
    own, same, other = (cells[name, "moving_shapes finetuned"][0] for name in names)
    assert own is same and other is not own
    rates = [run.needs[0].config.optimizer.learning_rate for run in (own, other)]
    assert rates == [1e-3, 3e-3]
    transferred = [run.config.optimizer.learning_rate for run in (own, other)]
    assert len(set(transferred)) == 1


def test_as_many_frames_are_seen_with_other_clips(tmp_path):
    given = {"batch_size": "32", "clip.num_frames": "16"}
    _, cells = made(
        "methods:data=moving_shapes,clips=4800", overrides=given, seeds=(0,)
    )
    for method in ("ctp", "rotation", "vcop"):
        config = (
            cells["methods-data-moving_shapes-clips-4800"][
                method, "moving_shapes k-NN"
            ][0]
            .needs[0]
            .config
        )
        frames = 32 * 16 * (3 if method == "vcop" else 1)
        assert abs(config.steps * frames - 4800 * 8) <= frames / 2
    # A form for the small scale may have its own number, and steps come before frames.
    path = tmp_path / "own.py"
    path.write_text(
        'COLUMNS = {"IoU": {"metric": "iou"}}\nROWS = {"r": {"config": '
        '"configs/small.py", "frames": 12800, "small": {"frames": 1280}}}\n'
    )
    for settings, steps in (
        ({}, 100),
        ({"small": True}, 10),
        ({"small": True, "overrides": {"steps": "7"}}, 7),
    ):
        _, cells = made(str(path), **settings)
        assert only(cells["own"], "r", "IoU").config.steps == steps
    # Where these are the steps of the config, the command does not name them.
    path.write_text(path.read_text().replace("12800", "160_000"))
    _, cells = made(str(path))
    run = only(cells["own"], "r", "IoU")
    assert run.config.steps == 1250 and "steps" not in run.overrides


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"small": True, "overrides": {"epochs": "3"}}, "give --override=steps=N"),
        ({"overrides": {"batch_sizes": "8"}}, "did you mean --config.batch_size?"),
        ({"overrides": {"batch_size": "many"}}, "needs a value as Python writes it"),
        (
            {"overrides": {"batch_size": "0.5"}},
            "field 'batch_size' = 0.5: needs a whole number",
        ),
        ({"overrides": {"data.fraction": "2"}}, "config.data.fraction = 2"),
        ({"overrides": {"seed": "5"}}, "--override=seed: --seeds sets it"),
        ({"overrides": {"init_from": "/x"}}, "sets it to another of its runs"),
    ],
)
def test_wrong_overrides_are_one_line(settings, expected):
    with pytest.raises(UserError) as error:
        made("table7", **settings)[0].check_settings()
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_data_may_be_for_columns_that_are_left_out():
    data = {"ucf101": "mine:train:test", "something_something_v1": "other:train:test"}
    made("table7", small=True, data=data)[0].check_settings()
