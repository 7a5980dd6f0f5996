"""Tables are made of the numbers in metrics files, beside the paper's; what is missing is
said. The runs are written by hand."""

import pathlib
import re
import statistics
import subprocess

import numpy as np
import pytest
from PIL import Image

from ctp_jax.reproduce import experiments, pictures, runs
from tests.report import make_runs
from tests.report.html_page import Page
from tests.reproduce import command


def write(root, run, **results):
    """A finished run with these results, after an earlier evaluation with others."""
    folder = root / run.name
    make_runs.write_config(
        folder, **{"seed": run.config.seed, "data.name": run.config.data.name}
    )
    lines = [
        {"kind": "train", "step": 5, "loss": 1.5},
        {"kind": "eval", "step": 5, **dict.fromkeys(results, 0.001)},
        {"kind": "train", "step": 10, "loss": 0.5},
        {"kind": "eval", "step": 10, **results},
    ]
    make_runs.write_metrics(folder, lines)
    (folder / "encoder").mkdir()
    (folder / "encoder" / "encoder.json").write_text("{}")
    return folder


def cells_of(name, **settings):
    made = runs.Runs(runs.Settings(**settings))
    return made.cells(experiments.read(name))


def texts(markdown):
    """Rows of cells of a Markdown table."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_table_beside_the_papers(tmp_path, capsys):
    values, rng = {}, np.random.default_rng(0)
    for place, cell in cells_of("table1", seeds=(0, 1, 2)).items():
        for run in cell:
            if place == ("UCF-101, Cycle consistency", "UCF") and run.config.seed == 2:
                continue
            if place == ("GOT-10k, Real annotation", "H51"):
                continue
            value = float(rng.uniform())
            values.setdefault(place, []).append(100 * value)
            write(tmp_path, run, top1=value, top5=0.9)
    flags = ["--table", f"--root={tmp_path}", "--seeds=0,1,2"]
    code, out, _ = command.run(capsys, "table1", *flags)
    assert code == 0
    head, _, *rows = texts((tmp_path / "tables" / "table1.md").read_text())
    assert head[2:] == ["UCF, paper", "UCF, ours", "H51, paper", "H51, ours"]
    ucf, hmdb = [[float(row[place]) for row in rows] for place in (2, 4)]
    assert ucf == [65.0, 70.6, 81.1, 83.9, 77.0, 80.4, 85.9]
    assert hmdb == [30.9, 44.4, 53.3, 53.6, 51.4, 49.4, 55.7]
    for row in rows:
        for column, text in (("UCF", row[3]), ("H51", row[5])):
            found = values.get((f"{row[0]}, {row[1]}", column))
            if found is None:
                assert text == "–"
                continue
            mean, deviation = statistics.fmean(found), statistics.stdev(found)
            few = " (2 of 3)" * (len(found) == 2)
            assert text == f"{mean:.1f} ± {deviation:.1f}\u00a0%{few}"
    # What is missing has a line, here, in the terminal and on the page.
    page = (tmp_path / "tables" / "table1.html").read_text()
    Page(page)
    for text in (out, page, (tmp_path / "tables" / "table1.md").read_text()):
        lines = re.findall(r"(?:GOT-10k, Real|UCF-101, Cycle).*", text)
        lines = [line for line in lines if "not made" in line]
        assert len(lines) == 2 and "H51: recognition-hmdb51-" in "".join(lines)
    assert re.search(r"Cycle consistency +81.1 .*\(2 of 3\)", out)
    for text in (out, page, (tmp_path / "tables" / "table1.md").read_text()):
        assert "deviation over seeds and splits" in text and "of the CtP paper" in text


def test_columns_of_one_run_and_rows_without_one(tmp_path, capsys):
    for (row, _), cell in cells_of("table5").items():
        if row == "Ours, UCF" and not isinstance(cell, str):
            for run in cell:
                if not (tmp_path / run.name).exists():
                    top = {"ucf101": (0.25, 0.5), "hmdb51": (0.125, 0.375)}
                    first, fifth = top[run.config.data.name]
                    write(tmp_path, run, retrieval_top1=first, retrieval_top5=fifth)
    code, out, _ = command.run(capsys, "table5", "--table", f"--root={tmp_path}")
    assert code == 0
    numbers = r"Ours, UCF +23.4 +25.0.% +40.9 +50.0.% +11.4 +12.5.% +30.2 +37.5.%"
    assert re.search(numbers, out)
    assert "SpeedNet, K400, UCF top-1; SpeedNet, K400, UCF top-5" in out
    assert "the binary SpeedNet of its own paper is not here" in out


def test_chance_and_a_figure(tmp_path, capsys):
    spec = "truth:data=mine"
    for place, cell in cells_of(spec, seeds=(0,)).items():
        for run in cell:
            if not (tmp_path / run.name).exists():
                found = {"top1": 0.5} if place[1] == "finetuned" else {}
                found |= {} if found else {"knn_top1": 0.375, "retrieval_top1": 0.25}
                # Each metric has its own.
                chance = {"top1": 0.6, "knn_top1": 0.55, "retrieval_top1": 0.52}
                chance = {f"{name}_chance": chance[name] for name in found}
                videos = {"videos": 100} if "top1" in found else {"knn_videos": 100}
                write(tmp_path, run, **found, **chance, **videos)
    with_report = run.name
    (tmp_path / with_report / "report.html").write_text("")
    flags = ["--table", f"--root={tmp_path}", "--seeds=0"]
    code, out, _ = command.run(capsys, spec, *flags)
    assert code == 0
    assert re.search(r"(?m)^Chance +60.0.% +55.0.% +52.0.%", out)
    assert re.search(r"(?m)^None, as many steps in all +50.0.% +– +–", out)
    assert "missing" not in out and "paper" not in out and "±" not in out
    # The largest standard error, at 0.5 of 100 videos: sqrt(0.5 * 0.5 / 100).
    about = "finetuned: 100 videos; chance 60.0\u00a0%; one run has a standard error of up to"
    assert f"\n{about} 5.0 points\nk-NN: " in out
    page = next((tmp_path / "tables").glob("*.html")).read_text()
    assert f'<p class="under">{about} 5.0 points</p>' in page and "“paper”" not in page
    links = re.findall(r'<a href="\.\./([^"]+)/report.html">\1</a>', page)
    assert links == [with_report]
    # Fig. 4: a line of each row, at the shares of the labels.
    for (row, column), cell in cells_of("fig4", small=True).items():
        (run,) = cell
        share = float(column.removesuffix(" %")) / 100
        write(tmp_path, run, top1=share / 2 if row == "CtP" else share / 4)
    flags = ["--table", f"--root={tmp_path}", "--scale=small"]
    code, out, _ = command.run(capsys, "fig4", *flags)
    page = (tmp_path / "tables" / "fig4-small.html").read_text()
    Page(page)
    assert "on moving_shapes: not to be compared with the paper's numbers" in out
    again = f"python -m ctp_jax.reproduce fig4 --root={tmp_path.name} --scale=small"
    assert again in page and again in (tmp_path / "tables/fig4-small.md").read_text()
    assert code == 0 and page.count("<figure") == 1 and "20 %" in page
    assert re.search(r"CtP +2.5.% +5.0.% +10.0.% +25.0.% +50.0.%", out)


def test_runs_with_other_flags_are_no_empty_table(tmp_path, capsys):
    flags = ["--table", f"--root={tmp_path}", "--rows=8"]
    none = f"table7: no runs of this table with these flags are in {tmp_path}: leave "
    none += "--table out to make them"
    assert command.run(capsys, "table7", *flags)[1:] == ("", none)
    assert not (tmp_path / "tables").exists()
    more = ["--scale=small", "--override=log_every=7", "--override=batch_size=4"]
    settings = {"small": True, "overrides": {"log_every": "7", "batch_size": "4"}}
    (run,) = cells_of("table7", **settings)["8", "UCF"]
    write(tmp_path, run, top1=0.5)
    assert "50.0" in command.run(capsys, "table7", *flags, *more, "--data_dir=/d")[1]
    page = (tmp_path / "tables" / "table7-small.md").read_text()
    assert "| 16 |" in page  # of the whole table
    there = f"{none}; tables there were drawn with {' '.join(more)}"
    assert command.run(capsys, "table7", *flags) == (2, "", there)
    assert command.run(capsys, "table7", *flags, "--scale=small") == (2, "", there)
    assert (tmp_path / "tables" / "table7-small.md").read_text() == page


@pytest.mark.parametrize(("small", "expected"), [(False, "no runs"), (True, "weights")])
def test_a_row_without_a_small_form(tmp_path, capsys, small, expected):
    flags = ["--table", f"--root={tmp_path}", "--rows=*ImageNet*"]
    _, out, error = command.run(capsys, "table3", *flags, *["--scale=small"] * small)
    assert re.search(
        f"{'R3D, Supervised, ImageNet, UCF.*' * small}{expected}", out + error
    )


def test_a_picture_needs_its_runs(tmp_path, capsys, monkeypatch):
    flags = ["--table", f"--root={tmp_path}", "--scale=small", "--data_dir=/data"]
    started = []

    def run_command(arguments, **_):
        started.append(arguments[1:])
        return subprocess.CompletedProcess(arguments, 2, "", "error: no such luck\n")

    monkeypatch.setattr(pictures.subprocess, "run", run_command)
    for place, cell in cells_of("fig5", small=True).items():
        if place[0] == "CtP":
            write(tmp_path, cell[0], top1=0.5)
    _, out, _ = command.run(capsys, "fig5", *flags)
    assert "picture videos: the run of Random is not made" in out and not started
    names = {}
    for place, cell in cells_of("fig5", small=True).items():
        names[place[0]] = cell[0].name
        if place[0] == "Random":
            write(tmp_path, cell[0], top1=0.25)
    _, out, _ = command.run(capsys, "fig5", *flags)
    assert "picture videos: no such luck" in out
    (arguments,) = started
    out = arguments.pop()
    assert out.startswith("--out=")
    assert arguments == [
        *("-m", "ctp_jax.explain"),
        *(f"--workdir={tmp_path}/{names[row]}" for row in ("CtP", "Random")),
        *("--videos=2", "--data_dir=/data"),
    ]
    command.run(capsys, "fig7", *flags)
    data = "data=moving_shapes,train=train,test=test"
    for count, arguments in enumerate(started[1:], 1):
        assert arguments[2] == f"--config=configs/small.py:{data}"
        assert f"--config.game.num_trajectories={count}" in arguments
        assert "--config.data.data_dir=/data" in arguments


def test_each_size_has_its_pictures(tmp_path, capsys, monkeypatch):
    drawn, codes = [], [2]  # the first time fails, after the folder was made

    def run_command(arguments, **_):
        (out,) = (x.partition("=")[2] for x in arguments if x.startswith("--out="))
        code = codes.pop() if codes else 0
        pathlib.Path(out).mkdir(parents=True)
        if not code:
            spec = next(x for x in arguments if x.startswith("--config="))
            colour = (255, 0, 0) if "small" in spec else (0, 0, 255)
            Image.new("RGB", (8, 8), colour).save(f"{out}/game.png")
            drawn.append(spec)
        return subprocess.CompletedProcess(arguments, code, "", "error: no such luck\n")

    def pictures_of(*flags):
        code, out, error = command.run(
            capsys, "fig7", "--table", f"--root={tmp_path}", *flags
        )
        assert code == 0, error
        name = "fig7-small" if "--scale=small" in flags else "fig7"
        page = (tmp_path / "tables" / f"{name}.html").read_text()
        return out, set(re.findall(r"data:image/[^\"']+", page))

    monkeypatch.setattr(pictures.subprocess, "run", run_command)
    out, _ = pictures_of("--scale=small")
    assert "no such luck" in out and len(drawn) == 2
    out, small = pictures_of("--scale=small")
    assert "no such luck" not in out and len(drawn) == 3 and small
    _, full = pictures_of()
    assert len(drawn) == 6 and full and not small & full
    assert pictures_of("--scale=small")[1] == small and len(drawn) == 6
    assert not [*tmp_path.rglob(".incomplete-*")]
