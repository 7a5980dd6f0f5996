"""Experiments are read, or what is wrong with them is one line; the docs are up to date."""

import json
import re

import pytest

from ctp_jax import models, results
from ctp_jax.errors import UserError
from ctp_jax.reproduce import __main__ as reproduce
from ctp_jax.reproduce import experiments, overview, plan, runs
from tests.report import make_runs
from tests.reproduce import command

ROOT = experiments.checkout()


def test_all_tables_and_figures_are_there():
    expected = {f"table{number}" for number in range(1, 11)}
    expected |= {f"fig{number}" for number in range(3, 9)}
    assert expected | {"methods", "truth", "severe"} == set(experiments.names())


def test_the_page_has_what_the_files_say():
    """`python -m ctp_jax.reproduce --overview=docs/experiments.md` writes it."""
    text = (ROOT / "docs" / "experiments.md").read_text()
    _, _, rest = text.partition(overview.BEGIN)
    assert rest.partition(overview.END)[0] == overview.table(900)


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_has_small_runs_of_the_small_network(name):
    found = runs.Runs(runs.Settings(small=True, seeds=(0,)))
    experiment = experiments.read(name)
    found.cells(experiment)
    assert found.by_name or experiment.pictures
    assert all(results.is_known(column.metric) for column in experiment.columns)
    for run in found.by_name.values():
        assert run.config.clip.size <= 64 and run.config.model.width == 0.125
        assert run.config.steps or not run.trains


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", experiments.names())
def test_every_run_can_start_from_what_it_starts_from(name, small):
    """Not found out when days of pretraining are over."""
    found = runs.Runs(runs.Settings(small=small, seeds=(0,)))
    found.cells(experiments.read(name))
    for run in found.by_name.values():
        for needed in run.needs:
            stored = models.create(needed.config.model).architecture()
            models.create(run.config.model).check_same_weights(stored)


def test_hours_of_the_papers_runs():
    """By hand: 300 epochs of 9,537 clips, and the game's 3,783 held-out clips 30 times."""
    found = runs.Runs(runs.Settings())
    experiment = experiments.chosen(experiments.read("table7"), ["8"], ["UCF"])
    (finetuned,) = found.cells(experiment)["8", "UCF"]
    (game,) = finetuned.needs
    assert plan.clips(game, published=True) == pytest.approx(300 * 9537 + 30 * 3783 / 3)
    expected = 150 * 9537 + 15 * 10 * 3783 / 3
    assert plan.clips(finetuned, published=True) == pytest.approx(expected)
    # Retrieval: ten clips of every video, once. SSv1: clips of twice the frames.
    column = experiments.chosen(
        experiments.read("table5"), ["Ours, UCF"], ["UCF top-1"]
    )
    (retrieval,) = found.cells(column)["Ours, UCF", "UCF top-1"]
    expected = 10 * (9537 + 3783) / 3  # nearest neighbours and k-NN look at the same
    assert plan.clips(retrieval, published=True) == pytest.approx(expected)
    column = experiments.chosen(experiments.read("table3"), ["R3D, None, None"], ["SS"])
    (ssv1,) = found.cells(column)["R3D, None, None", "SS"]
    expected = 2 * (90 * 86_017 + 9 * 11_522 / 3)
    assert plan.clips(ssv1, published=True) == pytest.approx(expected)


def test_a_plan_and_the_commands(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    flags = ["--columns=UCF", f"--root={tmp_path}", f"--data_dir={tmp_path}/empty"]
    code, out, _ = command.run(
        capsys, "table7", "--plan", "--clips_per_second=1000", *flags
    )
    # 2,898,930 clips of the game twice, of finetuning 1,619,700 twice.
    assert code == 0 and "\n4 runs, 4 to make: 2h30m\n" in out
    assert "\nnot there yet: data set ucf101: python -m ctp_jax.prepare ucf101 " in out
    assert re.search(r"(?m) 1  ctp-.*  row 16$", out)
    assert re.search(r"(?m) 3  recognition-.*  27m00s  after 1  row 16: UCF$", out)
    # With what a run of this kind logged, of 32 frames in place of 16.
    basis = {"task": "ctp", "model.name": "r3d18", "model.width": 1.0}
    basis |= {"clip.num_frames": 32, "clip.size": 112}
    folder = tmp_path / "another run"
    folder.mkdir()
    mark = {"command": "", "basis": basis}
    (folder / "reproduce.json").write_text(json.dumps(mark))
    rates = [{"clips_per_second": 250.0}, {"clips_per_second": 1000.0}, {}]
    rates.append({"clips_per_second": 200.0})
    make_runs.write_metrics(folder, [{"kind": "train", "step": 1, **r} for r in rates])
    code, out, _ = command.run(capsys, "table7", "--plan", *flags)
    assert re.search(r" 1  ctp-.*  1h36m  row 16", out)  # at 500 clips of 16 frames
    # It computed for 10 seconds and took an hour more, to compile, say.
    mark |= {"clips": 5000, "seconds": 3610.0}
    (folder / "reproduce.json").write_text(json.dumps(mark))
    code, out, _ = command.run(capsys, "table7", "--plan", *flags)
    assert re.search(r" 1  ctp-.*  2h36m  row 16", out)
    assert (
        ", and 2 of unknown length.\nThe unknown times follow from --clips_per_second=N, "
        in out
    )
    # A run of several tables; its place in the first.
    code, out, _ = command.run(capsys, "table1", "table5", "--plan", *flags[1:])
    plan_of_runs = out.partition("not there yet")[0]
    assert max(map(len, plan_of_runs.splitlines())) <= 100
    assert re.search(r"ctp-ucf101-\S+ +\S+\s+table1, row UCF-101, Pre-set", out)
    assert "table5, row Ours, UCF: UCF top-1 and 1 more" in out
    code, out, _ = command.run(capsys, "table7", "--commands", *flags)
    lines = out.splitlines()
    assert code == 0 and len(lines) == 4
    assert all(line.startswith("python -m ctp_jax.main --config=") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tabel4"], "'tabel4': no such table; did you mean table4?"),
        (["9"], "no such table"),
        (["there/is/none.py"], "there/is/none.py: no such file"),
        (["table4", "--shard=4/4"], "--shard=4/4: needs I/N with I from 0 to N-1"),
        (["table4", "--shard=a"], "--shard=a: needs I/N"),
        (["table4", "--seeds=0;1"], "--seeds=0;1: needs whole numbers from 0"),
        (["table4", "--seeds=-1"], "--seeds=-1: needs whole numbers"),
        (["table4", "--splits=4"], "--splits=4: needs whole numbers from 1 to 3"),
        (["table4", "--rows=none such"], "no such rows of table4: there are DPC"),
        (["table4", "--columns=UCFF"], "no such columns of table4: there are UCF; H51"),
        (["table4", "--data=mine"], "needs --scale=small"),
        (
            ["methods", "--scale=small", "--data=mine:a:b"],
            "--data=mine: no run here is on data of the paper, but on arid6, ",
        ),
        (
            ["methods:data=mine:a", "--plan"],
            "data=mine:a: needs NAME or NAME:TRAIN:TEST",
        ),
        (["table4", f"--root={__file__}"], "is a file: name a folder"),
        (
            ["table4", "--scale=small", "--data=ucf=mine"],
            "data set of the paper: ucf101",
        ),
        (["table4", "--scale=small", "--data=a:b"], "needs NAME or NAME:TRAIN:TEST"),
        (["table4", "--override=steps"], "needs FIELD=VALUE"),
        (["table4:x=1"], "table4.py: takes no arguments: 'x=1'"),
        (["methods:dat=x"], "'dat': not one of"),
        (["methods:rates=1e-3+a"], "rates=a: needs numbers such as 3e-4+3e-3"),
        (["methods:methods=mocco"], "methods=mocco: not one of ctp, rotation"),
    ],
)
def test_what_cannot_be_is_one_line(capsys, arguments, expected):
    code, _, error = command.run(capsys, *arguments)
    assert code == 2 and expected in error


def test_a_sweep_without_its_ending_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_sweep.py").touch()
    with pytest.raises(UserError, match="no such table; did you mean my_sweep.py"):
        experiments.read("my_sweep")


COLUMN = "COLUMNS = {'c': {'config': 'configs/finetune_small.py', 'metric': 'top1'}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1 +", "(line 1): SyntaxError"),
        ("\n\nROWS = name", "(line 3): NameError: name 'name' is not defined"),
        ("x = 1", "has no ROWS"),
        ("ROWS = {'r': None}\nCOLUMN = {'c': 3}", "has no COLUMNS"),
        ("ROWS = [1]", "ROWS: must be a dict"),
        (
            "ROWS = {'r': None}\nCOLUMNS = {'c': 'top1'}",
            "column 'c': needs a dictionary",
        ),
        (COLUMN + "ROWS = {'r': 3}", "row 'r': needs a run or a dictionary"),
        (COLUMN + "ROWS = {'r': {'pretrian': None}}", "did you mean pretrain?"),
        (
            COLUMN + "ROWS = {'r': {'paper': (1, 2)}}",
            "row 'r': more numbers than columns",
        ),
        (COLUMN + "ROWS = {'r': {'columns': ('d',)}}", "row 'r': no column fits 'd'"),
        (COLUMN + "ROWS = {('r', 's'): None}", "row 'r, s': needs 1 parts, LABELS"),
        (COLUMN + "ROWS = {'r': 'configs/smal.py'}", "did you mean configs/small.py?"),
        (
            COLUMN + "ROWS = {'r': {'config': 'configs/small.py', 'game.sped': 1}}",
            "column 'c': configs/small.py: field 'game.sped': no such field; did you mean",
        ),
        (
            COLUMN + "ROWS = {'r': {'config': 'configs/small.py', 'batch_size': 'x'}}",
            "field 'batch_size' = 'x'",
        ),
        (
            COLUMN + "ROWS = {'r': {'config': 'configs/small.py', 'batch_size': -1}}",
            "config.batch_size = -1",
        ),
        (COLUMN + "ROWS = {'r': 'configs/small.py:{x}'}", "no value for 'x'"),
        (COLUMN + "ROWS = {'r': None}\nSEEDS = ('0',)", "SEEDS: needs whole numbers"),
        (COLUMN + "ROWS = {'r': {'paper': 83.9}}", "'paper' = 83.9: needs a tuple"),
        (COLUMN + "ROWS = {'r': {'paper': {'c': 83.9}}}", "needs a tuple"),
        (COLUMN + "ROWS = {'r': {'paper': ('83.9',)}}", "needs numbers or None"),
        (COLUMN + "ROWS = {'r': {'transfer': 'freeze'}}", "needs a dictionary"),
        (COLUMN + "ROWS = {'r': {'pretrain': {'steps': 1}}}", "needs a run or None"),
        (COLUMN + "ROWS = {'r': {'columns': None}}", "'columns' = None: needs a tuple"),
        (COLUMN + "ROWS = {'r': {'missing': 3}}", "'missing' = 3: needs text"),
        (COLUMN + "ROWS = {'r': {'config': 3}}", "'config' = 3: needs text"),
        (COLUMN + "ROWS = {'r': {'config': 'a', 'seed': 3}}", "'seed': SEEDS and"),
        (COLUMN + "ROWS = {'r': {'config': 'a', 'frames': '9'}}", "a whole number"),
        (
            COLUMN + "ROWS = {'r': {'config': 'a', 'init_from': {'config': 'b', "
            "'small': ['c']}}}",
            "'small' = ['c']: needs a dictionary",
        ),
        ("ROWS = {}\nCOLUMNS = {'c': {'metric': ['top1']}}", "'metric' = ['top1']"),
        ("ROWS = {}\nCOLUMNS = {'c': {'metric': 'a', 'values': 'b'}}", "a dictionary"),
    ],
)
def test_what_is_wrong_in_a_file_of_ones_own(
    tmp_path, capsys, monkeypatch, text, expected
):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "own.py"
    path.write_text(text)
    code, _, error = command.run(capsys, path, "--plan", f"--root={tmp_path}/runs")
    assert code == 2 and str(path.stem) in error and expected in error


def test_labels_may_be_numbers_and_titles_in_any_encoding(tmp_path):
    path = tmp_path / "own.py"
    path.write_bytes(
        b'# coding: latin-1\n"""Caf\xe9."""\n'
        b'COLUMNS = {1: {"config": "configs/finetune_small.py", "metric": "top1"}}\n'
        b'ROWS = {1.0: "configs/small.py", 2.0: None}\n'
    )
    experiment = experiments.read(str(path))
    assert experiment.title == "Caf\xe9"
    assert [row.name for row in experiment.rows] == ["1.0", "2.0"]
    assert list(runs.Runs(runs.Settings()).cells(experiment)) == [
        ("1.0", "1"),
        ("2.0", "1"),
    ]


def test_tables_of_other_arguments_are_other_files():
    names = {
        experiments.read(f"methods{arguments}").name
        for arguments in ("", ":data=mine", ":data=mine,methods=ctp+moco")
    }
    assert names == {
        "methods",
        "methods-data-mine",
        "methods-data-mine-methods-ctp+moco",
    }


def test_the_example_runs(capsys, tmp_path):
    path = ROOT / "examples" / "sweep.py"
    code, out, _ = command.run(capsys, path, "--commands", f"--root={tmp_path}")
    assert code == 0 and out.count("--config=configs/small.py") == 3


@pytest.mark.parametrize(
    "name", sorted(set(experiments.names()) - {"methods", "truth"})
)
def test_a_small_table_runs_on_the_data_that_are_named(name):
    """As a whole, pretraining and columns; `methods` and `truth` have an argument for it."""
    found = runs.Runs(runs.Settings(small=True, seeds=(0,), data={"": "mine:a:b"}))
    found.cells(experiments.read(name))
    names = {run.config.data.name for run in found.by_name.values()}
    assert names <= {"mine", "mine_tracks", "mine_flow"}


def test_small_features_have_time_to_squeeze():
    """In Table 8, which would compare a network with itself otherwise."""
    found = runs.Runs(runs.Settings(small=True, seeds=(0,)))
    found.cells(experiments.read("table8"))
    games = [run.config for run in found.by_name.values() if run.config.task == "ctp"]
    assert {config.head.squeeze for config in games} == {False, True}
    for config in games:
        time, _ = models.create(config.model).total_stride()
        assert config.clip.num_frames // time > 1


def test_a_metric_that_nobody_has_is_named_before_any_run(tmp_path, capsys):
    path = tmp_path / "sweep.py"
    path.write_text(COLUMN.replace("top1", "topp") + "ROWS = {'r': None}\n")
    reproduce._check_metrics([experiments.read(str(path))])
    assert capsys.readouterr().err == (
        "note: sweep, column 'c': no evaluator of ctp_jax has a metric 'topp'; did you "
        "mean top5?\n"
    )
