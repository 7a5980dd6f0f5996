"""Verdicts, the run beside a run, and the commands that come next."""

import json
import shlex
import sys

import pytest

from ctp_jax import cli, report, results
from ctp_jax import config as config_lib
from ctp_jax.flags import Flags
from ctp_jax.report import commands, read, verdict
from tests.report import make_runs
from tests.report.html_page import assert_self_contained


def said(workdir):
    run = read.read(workdir)
    return verdict.verdict(run, verdict.other(run)).replace("\u00a0", " ")


@pytest.mark.parametrize(
    "iou, says", [(0.7, "better than"), (0.5, "worse than"), (0.5625, "no better than")]
)
def test_boxes_against_one_that_stays(tmp_path, iou, says):
    make_runs.pretraining(tmp_path, iou=iou)
    start = f"follows patches {says} a box that stays: IoU "
    assert said(tmp_path).startswith(start)


@pytest.mark.parametrize(
    "top1, says",
    [
        # 90 videos, chance 1/3: its standard error is sqrt(2 / 9 / 90), 5.0 points, and
        # two of them are 9.9.
        (0.45, "better than"),
        (0.42, "no better than"),
        (0.25, "no better than"),
        (0.20, "worse than"),
    ],
)
def test_accuracy_counts_from_two_standard_errors_on(tmp_path, top1, says):
    make_runs.recognition(tmp_path, top1=top1)
    text = said(tmp_path)
    assert text.startswith(
        f"tells the classes apart {says} chance: top-1 {100 * top1:.1f}"
    )
    assert text.endswith("% on 90 videos against 33.3 %")
    found = report.write(tmp_path).read_text()
    standing = {"better than": "better", "worse than": "worse"}.get(says, "even")
    assert f'<div class="tile {standing}"><p>top-1 accuracy' in found


def test_a_random_encoder_beside_it(tmp_path):
    fields = {"init_from": "runs/pre", "data.data_dir": "/data"}
    make_runs.retrieval(tmp_path / "mine", top1=0.5, **fields)
    alone = "finds videos of the same class better than chance: top-1 of retrieval 50.0 ± 5.0 "
    alone += "% on 100 videos against 10.0 %"
    assert said(tmp_path / "mine") == alone
    make_runs.retrieval(tmp_path / "other_data", top1=0.9, **{"data.name": "other"})
    assert said(tmp_path / "mine") == alone
    make_runs.retrieval(tmp_path / "seed1", top1=0.9, seed=1)
    make_runs.retrieval(tmp_path / "zero", top1=0.12, **{"data.data_dir": "/elsewhere"})
    beside = "; better than a random encoder, 12.0 ± 3.2 % (zero)"
    assert said(tmp_path / "mine") == alone + beside
    page = assert_self_contained(report.write(tmp_path / "mine").read_text())
    assert "50.0 % ± 5.0 10.0 % chance 12.0 ± 3.2 % random encoder" in page.text
    # A difference of 13 points has a standard error of sqrt(0.5² + 0.48²) / 10, 7 points.
    make_runs.retrieval(tmp_path / "zero", top1=0.37)
    assert "; no better than a random encoder, 37.0 ± 4.8 %" in said(tmp_path / "mine")


def test_a_run_that_diverged(tmp_path):
    make_runs.pretraining(tmp_path)
    lines = make_runs.train_lines()
    lines[-1]["loss"] = 40.0
    make_runs.write_metrics(tmp_path, lines)
    text = "it diverged: the loss is 40.000 at the end, 2.100 at the start"
    assert said(tmp_path) == text
    make_runs.write_command(tmp_path, "--config=configs/small.py")
    ((_, command),) = commands.next_steps(read.read(tmp_path), None)
    assert "--config.optimizer.learning_rate=0.001" in command
    lines[-1]["loss"] = float("nan")
    make_runs.write_metrics(tmp_path, lines)
    assert said(tmp_path) == "it diverged: the loss is not finite"
    # The loss of a contrast with a queue of 63 rises to ln 64 = 4.2 and is none.
    make_runs.write_config(tmp_path, **{"contrast.queue": 63})
    lines[-1]["loss"] = 4.2
    make_runs.write_metrics(tmp_path, lines)
    assert (
        said(tmp_path)
        == "not evaluated: training loss 2.100 at first, 4.200 at the end"
    )


def test_a_run_that_is_not_finished(tmp_path):
    make_runs.write_config(tmp_path, steps=600)
    make_runs.write_metrics(tmp_path, make_runs.train_lines(steps=600)[:30])
    assert said(tmp_path).startswith("not finished, 300 of 600 steps; not evaluated")
    make_runs.write_command(tmp_path, "--config=x.py")
    ((why, command),) = commands.next_steps(read.read(tmp_path), None)
    assert why == "to go on, the same command"
    assert command[2:] == ["ctp_jax.main", "--config=x.py", f"--workdir={tmp_path}"]
    # Of several processes: as one, which can be typed.
    several = ("--coordinator=a:1", "--process_count", "2", "--process_index=0")
    several += ("--stopped_exit_code=75",)
    make_runs.write_command(tmp_path, "--config=x.py", *several)
    assert commands.next_steps(read.read(tmp_path), None) == [(why, command)]


def test_a_run_of_epochs_that_was_cut_before_its_first_line(tmp_path):
    make_runs.write_config(tmp_path, steps=0, epochs=150.0)
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    run = read.read(tmp_path)
    assert verdict.total_steps(run) is None and not verdict.is_finished(run)
    assert said(tmp_path).startswith("not finished")


def test_what_is_not_known_has_no_verdict(tmp_path):
    make_runs.write_config(tmp_path)
    assert said(tmp_path).startswith("not finished, 0 of 300")
    assert results.sentence({}) == ""
    odd = results.results({"pitch_error": 0.25})
    assert results.sentence(odd) == "pitch error 0.250"


def parsed(command, monkeypatch):
    """The config of a suggested command, parsed as the command would."""
    assert command[:3] == ["python", "-m", "ctp_jax.main"]
    values = Flags()
    config = cli.define_config(values)
    workdir = values.string("workdir", None, "")
    monkeypatch.setattr("sys.argv", ["main", *command[3:]])
    assert cli.parse(sys.argv, values, "") == []
    return config_lib.flatten(config.value), workdir.value


def pretrained(tmp_path, classes, **fields):
    workdir = tmp_path / "runs" / "pre"
    make_runs.pretraining(workdir)
    make_runs.write_config(workdir, task="ctp", **fields)
    (workdir / "encoder").mkdir()
    about = {"provenance": {"class_names": classes}}
    (workdir / "encoder" / "encoder.json").write_text(json.dumps(about))
    return workdir


SMALL = {"model.name": "r3d10", "clip.size": 56, "model.width": 0.125}


@pytest.mark.parametrize(
    "fields, name",
    [
        (SMALL | {"data.name": "mine", "data.split": "train"}, "mine"),
        (SMALL | {"data.name": "m", "data.split": "a", "data.eval_split": "b"}, "m"),
        (SMALL | {"model.name": "s3d", "model.width": 0.25}, "toy"),
        (
            {"data.name": "ucf101", "model.width": 1.0, "model.name": "r2plus1d18"},
            "ucf101",
        ),
        ({"data.name": "own", "data.split": "train", "data.eval_split": "test"}, "own"),
    ],
)
def test_next_commands_parse(tmp_path, monkeypatch, fields, name):
    workdir = pretrained(tmp_path, ["walk", "run"], **fields)
    retrieval, finetune = commands.next_steps(read.read(workdir), None)
    for task, (_, command) in (("encoder", retrieval), ("recognition", finetune)):
        flat, out = parsed(command, monkeypatch)
        assert flat["task"] == task and flat["data.name"] == name
        assert flat["data.data_dir"] == "/data"
        assert flat["init_from"] == str(workdir) and out.startswith(f"{workdir}_")
        for field in ("model.name", "model.width", "data.split", "data.eval_split"):
            if field in fields:
                assert flat[field] == fields[field], field


@pytest.mark.parametrize("small", [True, False])
def test_without_held_out_videos_the_next_command_evaluates_nothing(
    tmp_path, monkeypatch, small
):
    fields = {"data.name": "mine", "data.split": "train", "data.eval_split": ""}
    workdir = pretrained(
        tmp_path, ["walk", "run"], **fields, **(SMALL if small else {})
    )
    ((_, finetune),) = commands.next_steps(read.read(workdir), None)
    flat, _ = parsed(finetune, monkeypatch)
    assert (flat["data.split"], flat["data.eval_split"]) == ("train", "")


def test_an_encoder_of_flow_is_not_used_on_rgb(tmp_path):
    flow = {"data.name": "ucf101_flow", "data.stream": "flow"}
    for classes in ([], ["walk", "run"]):
        workdir = pretrained(tmp_path / str(len(classes)), classes, **flow)
        assert commands.next_steps(read.read(workdir), None) == []


def test_videos_without_classes_have_features(tmp_path):
    workdir = pretrained(tmp_path, [])
    steps = commands.next_steps(read.read(workdir), None)
    assert [command[2] for _, command in steps] == [
        "ctp_jax.features",
        "ctp_jax.search",
    ]


def test_what_was_trained_on_real_boxes_follows_one(tmp_path):
    workdir = pretrained(tmp_path, ["walk", "run"], **{"truth.real": 1})
    (_, command), *others = commands.next_steps(read.read(workdir), None)
    assert command[2:4] == ["ctp_jax.track", "VIDEO"] and len(others) == 2
    assert f"--init_from={workdir}" in command


@pytest.mark.parametrize(
    ("shares", "followed"),
    [
        ({"preset": 1, "real": 1}, "patches"),
        ({"preset": 0, "real": 1}, "objects"),
        ({"preset": 0, "real": 0, "teacher": 1}, "a tracker's boxes"),
    ],
)
def test_the_verdict_says_what_is_followed(tmp_path, shares, followed):
    fields = {f"truth.{name}": share for name, share in shares.items()}
    workdir = pretrained(tmp_path, [], **fields)
    said = verdict.verdict(read.read(workdir), None)
    assert f"follows {followed} " in said


def test_the_comparison_comes_next(tmp_path):
    workdir = tmp_path / "ft"
    typed = ["--config", "configs/finetune_small.py", "--config.init_from=runs/pre"]
    make_runs.recognition(workdir, init_from="runs/pre")
    make_runs.write_command(workdir, *typed, "--config.init_head", "--config.seed=0")
    ((_, command),) = commands.next_steps(read.read(workdir), None)
    assert command == [
        "python",
        "-m",
        "ctp_jax.main",
        "--config=configs/finetune_small.py",
        "--config.seed=0",
        f"--workdir={workdir}_scratch",
    ]
    make_runs.recognition(tmp_path / "ft_scratch", top1=0.5)
    run = read.read(workdir)
    ((_, command),) = commands.next_steps(run, verdict.other(run))
    assert command[2:] == ["ctp_jax.report", str(tmp_path / "ft_scratch"), str(workdir)]


def test_the_last_words_of_a_run(tmp_path):
    make_runs.recognition(tmp_path / "r", top1=0.3, init_from="runs/pre")
    make_runs.write_command(tmp_path / "r", "--config=configs/x.py:data=a b")
    lines = "\n".join(report.last_words(tmp_path / "r")).splitlines()
    assert lines[0].startswith("  verdict      tells the classes apart no better than")
    assert all(len(line) <= 100 for line in lines if "/" not in line)
    # What is printed can be pasted: a shell reads the same words.
    start = next(i for i, line in enumerate(lines) if line.strip().startswith("python"))
    end = next(i for i in range(start, len(lines)) if not lines[i].endswith("\\"))
    words = shlex.split("\n".join(lines[start : end + 1]))
    assert "--config=configs/x.py:data=a b" in words and "--config.steps=1200" in words


def test_a_published_command_names_no_folders():
    given = ["python", "-m", "ctp_jax.main", "--workdir=/home/ann/r", "--config=c/x.py"]
    given += ["--config.data.data_dir", "/home/ann/data"]
    words = ["python", "-m", "ctp_jax.main", "--workdir=r", "--config=c/x.py"]
    assert commands.published(given) == [*words, "--config.data.data_dir=data"]
