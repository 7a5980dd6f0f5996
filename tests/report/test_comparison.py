"""The page that compares runs: groups, means and the curve over labels."""

import json

import pytest

from ctp_jax import report, results
from ctp_jax.errors import UserError
from ctp_jax.report import __main__, comparison, groups, read
from tests.commands import call
from tests.report import make_runs
from tests.report.html_page import assert_self_contained, curve, lines


def compare(tmp_path, workdirs):
    path = report.compare(workdirs, tmp_path / "comparison.html")
    return assert_self_contained(path.read_text(encoding="utf-8"))


def make_encoder(workdir, seed, width=0.25):
    """An exported encoder's description, as finetuning finds it."""
    config = {"task": "ctp", "seed": seed, "model": {"width": width}}
    about = {"provenance": {"config": config, "steps": 100}}
    (workdir / "encoder").mkdir(parents=True)
    (workdir / "encoder" / "encoder.json").write_text(json.dumps(about))
    return str(workdir)


def test_means_over_seeds(tmp_path):
    accuracies = {"": [0.50, 0.52, 0.57], "p/pre": [0.70, 0.71]}
    workdirs = []
    for start, values in accuracies.items():
        for seed, top1 in enumerate(values):
            workdirs.append(tmp_path / f"{start.replace('/', '_')}{seed}")
            make_runs.recognition(
                workdirs[-1],
                top1=top1,
                seed=seed,
                init_from=start,
                **{"data.workers": seed},
            )
    page = compare(tmp_path, workdirs)
    scratch, pretrained, without = page.table("runs", "n")
    # (50 + 52 + 57) / 3 = 53; sqrt((9 + 1 + 16) / 2) = 3.606
    assert scratch[:3] == ["from scratch", "3", "53.0 ± 3.6 %"]
    # Mean 70.5, deviation sqrt(2 * 0.25) = 0.707.
    assert pretrained[:3] == ["from pre", "2", "70.5 ± 0.7 %"]
    # Three classes of equally many videos.
    assert without[:3] == ["chance", "–", "33.3 %"]
    rows = page.table("run")
    assert [row[:3] for row in rows[2:4]] == [
        ["2", "2", "from scratch"],
        ["p_pre0", "0", "pre"],
    ]
    assert "could not be shown" not in page.text
    drawn = page.figures()
    assert set(drawn) == {"Training loss", "Top-1 accuracy"}


def test_accuracy_against_labels(tmp_path):
    """Paper Fig. 4: a line per start, means over seeds, bars from low to high."""
    workdirs = []
    start = [make_encoder(tmp_path / f"pre{seed}", seed) for seed in (0, 1)]
    for share, gain in ((0.1, 0.2), (0.5, 0.1), (1.0, 0.04)):
        for seed in (0, 1):
            for name, init in (("scratch", ""), ("pre", start[seed])):
                top1 = 0.3 + 0.4 * share + (gain if init else 0) + 0.02 * seed
                workdirs.append(tmp_path / f"{name}_{share}_{seed}")
                make_runs.recognition(
                    workdirs[-1],
                    top1=top1,
                    seed=seed,
                    init_from=init,
                    **{"data.fraction": share},
                )
    page = compare(tmp_path, workdirs)
    # Seed 1 adds two points: means lie one above seed 0.
    rows = {row[0]: row[2] for row in page.table("runs", "n")}
    assert rows["fraction 0.1, from scratch"] == "35.0 ± 1.4 %"
    assert rows["fraction 1.0, from pre0 / pre1"] == "75.0 ± 1.4 %"
    root = page.figures()["Top-1 accuracy against labels"]
    (x0, y0), (x1, y1), (x2, y2) = curve(root, 0)
    assert (x2 - x1) / (x1 - x0) == pytest.approx(0.5 / 0.4, abs=1e-3)
    assert (y2 - y1) / (y1 - y0) == pytest.approx(20 / 16, abs=1e-3)
    # Bars from seed 0 to seed 1: two points of accuracy, where 16 are y1 - y0.
    bars = [line for line in lines(root, 0) if line[0][0] == line[-1][0]]
    assert [bar[0][0] for bar in bars] == pytest.approx([x0, x1, x2], abs=1e-3)
    for (_, low), (_, high) in bars:
        assert high - low == pytest.approx((y1 - y0) * 2 / 16, abs=1e-3)
    assert {"10 %", "50 %", "100 %"} <= {
        "".join(element.itertext()).strip() for element in root.iter()
    }
    assert {"55.0 ± 1.4 %", "61.0 ± 1.4 %"} <= set(rows.values())
    for name in ("10 % of the labels", "50 % of the labels", "100 % of the labels"):
        assert name in page.text


def test_shares_over_two_decades_are_logarithmic(tmp_path):
    workdirs = []
    for share in (0.01, 0.1, 1.0):
        workdirs.append(tmp_path / str(share))
        make_runs.recognition(workdirs[-1], **{"data.fraction": share})
    root = compare(tmp_path, workdirs).figures()["Top-1 accuracy against labels"]
    (x0, _), (x1, _), (x2, _) = curve(root, 0)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=1e-3)


def test_encoders_count_as_one_if_only_their_seed_differs(tmp_path):
    starts = [make_encoder(tmp_path / f"e{seed}", seed) for seed in (0, 1)]
    starts.append(make_encoder(tmp_path / "wide", 0, width=1.0))
    runs = []
    for number, start in enumerate([*starts, "gone/x", "gone/y", ""]):
        make_runs.write_config(tmp_path / f"r{number}", init_from=start, seed=number)
        runs.append(read.read(tmp_path / f"r{number}"))
    found = {tuple(r.name for r in g.runs): g.label for g in groups.group(runs)}
    assert found == {
        ("r0", "r1"): "from e0 / e1",
        ("r2",): "from wide",
        ("r3",): "from x",
        ("r4",): "from y",
        ("r5",): "from scratch",
    }


def test_groups_are_named_by_what_differs(tmp_path):
    runs = []
    for number, (width, rate) in enumerate([(0.25, 0.01), (0.25, 0.1), (1, 0.1)]):
        fields = {"model.width": width, "optimizer.learning_rate": rate}
        make_runs.write_config(tmp_path / str(number), **fields)
        runs.append(read.read(tmp_path / str(number)))
    assert [group.label for group in groups.group(runs)] == [
        "width 0.25, learning_rate 0.01",
        "width 0.25, learning_rate 0.1",
        "width 1, learning_rate 0.1",
    ]


def test_what_needs_no_network_is_a_range_where_it_differs(tmp_path):
    workdirs = []
    for number, iou in enumerate((0.6, 0.7)):
        workdirs.append(tmp_path / str(number))
        make_runs.write_config(workdirs[-1], **{"model.width": number})
        values = {"iou": iou, "iou_stay_put": 0.5 + number / 10}
        make_runs.write_metrics(workdirs[-1], make_runs.eval_lines(**values))
    assert compare(tmp_path, workdirs).table("run") == [
        ["0", "0", "300", "0.600"],
        ["1", "1", "300", "0.700"],
        ["a box that stays", "–", "–", "0.500 to 0.600"],
    ]


def test_different_tasks_side_by_side(tmp_path):
    make_runs.pretraining(tmp_path / "pre")
    make_runs.recognition(tmp_path / "rec", names=("<b>", "y"))
    make_runs.retrieval(tmp_path / "ret")
    (tmp_path / "bare" / "checkpoints").mkdir(parents=True)
    (tmp_path / "bare" / "config.json").write_text('{"data": ')
    names = ["pre", "rec", "ret", "bare"]
    page = compare(tmp_path, [tmp_path / name for name in names])
    tables = [[row[0] for row in table] for table in page.tables]
    assert [table[1] for table in tables] == names
    for task in ("ctp", "recognition", "encoder", "unknown task"):
        assert f"{task} " in page.text
    assert "bare: config.json: " in page.text.partition("could not be shown")[2]


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    for name in ("a", "b"):
        make_runs.pretraining(tmp_path / name / "run")
    again = tmp_path / "a" / "." / "run"
    page = compare(tmp_path, [tmp_path / "a/run", tmp_path / "b/run", again])
    names = [row[0] for row in page.table("experiment")]
    assert names == ["a/run", "b/run", "a box that stays"]
    assert "Comparison of 2 runs" in page.text


def test_deviation_is_that_of_a_sample():
    mean, deviation = comparison.spread("x", [1.0, 2.0, 4.0]).split(" ± ")
    assert mean == f"{7 / 3:.3f}"
    squares = [(value - 7 / 3) ** 2 for value in (1, 2, 4)]
    assert deviation == f"{(sum(squares) / 2) ** 0.5:.3f}"
    assert (
        comparison.spread("x", [3.0]) == "3.000" and comparison.spread("x", []) == "–"
    )


def test_table_of_seeds(tmp_path):
    for seed, top1 in enumerate((0.2, 0.3, 0.7)):
        make_runs.write_config(tmp_path / f"a{seed}", seed=seed)
        lines = make_runs.eval_lines(top1=top1)
        make_runs.write_metrics(tmp_path / f"a{seed}", lines)
    make_runs.write_config(tmp_path / "b", freeze=True)
    make_runs.write_metrics(tmp_path / "b", make_runs.eval_lines(top1=0.9))
    names = [f"a{seed}" for seed in range(3)] + ["b"]
    header, a, b = report.table([tmp_path / name for name in names]).splitlines()
    assert header.split() == ["recognition", "n", "top-1", "accuracy"]
    # Mean 0.4; deviations -0.2, -0.1, 0.3: sqrt(0.14 / 2) is 0.265.
    assert a.split() == ["freeze", "False", "3", "40.0", "±", "26.5", "%"]
    assert b.split() == ["freeze", "True", "1", "90.0", "%"]


def test_a_terminal_gets_the_columns_that_fit(tmp_path):
    names = ["top1", "top5", "class_accuracy", "clip_top1", "knn_top1", "knn_top5"]
    for run in "ab":
        make_runs.write_config(tmp_path / run, freeze=run == "a")
        lines = make_runs.eval_lines(**dict.fromkeys(names, 0.25))
        make_runs.write_metrics(tmp_path / run, lines)
    table = report.table([tmp_path / "a", tmp_path / "b"])
    assert max(map(len, table.splitlines())) <= 100
    header, *_, left = table.splitlines()
    named = left.removeprefix("also in the page: ").split("; ")
    labels = [results.label(name) for name in names]
    assert 0 < len(named) < len(names) and set(named) < set(labels)
    assert all(label in header for label in labels if label not in named)


def test_one_run_per_seed_counts_if_it_is_finished(tmp_path):
    # 0.9 is of a run that was cut, and seed 0 was run twice: that is said.
    runs = [(0, 0.2, 300), (0, 0.25, 300), (1, 0.4, 300), (2, 0.9, 100)]
    for i, (seed, top1, steps) in enumerate(runs):
        make_runs.write_config(tmp_path / str(i), seed=seed)
        lines = make_runs.eval_lines(steps=steps, top1=top1)
        make_runs.write_metrics(tmp_path / str(i), lines)
    table = report.table([tmp_path / str(i) for i in range(4)])
    # The sample deviation of 0.2 and 0.4 is 0.1 times the root of 2.
    row = table.splitlines()[1].split()
    assert row[-7:] == ["2", "of", "3", "30.0", "±", "14.1", "%"]
    again = table.splitlines()[2].split()
    assert again == ["1:", "seed", "0", "again", "1", "25.0", "%"]


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        call(__main__, *arguments)
        return capsys.readouterr().out

    for name, top1 in (("a", 0.5), ("b", 0.25)):
        make_runs.write_config(tmp_path / name, init_from=name)
        lines = make_runs.eval_lines(
            top1=top1, **({"top5": 0.75} if name == "a" else {})
        )
        make_runs.write_metrics(tmp_path / name, lines)
    *table, path = run("a", "b").splitlines()
    assert path == "comparison.html"
    assert [line.split() for line in table] == [
        ["recognition", "steps", "done", "top-1", "accuracy", "top-5", "accuracy"],
        ["a", "300", "50.0", "%", "75.0", "%"],
        ["b", "300", "25.0", "%", "–"],
        [],
    ]
    assert "Comparison of 2 runs" in (tmp_path / "comparison.html").read_text()
    assert run("a", "--out=one.html") == "one.html\n"
    assert "Configuration" in (tmp_path / "one.html").read_text()
    for wrong in (["a", "b", "--out=nowhere/x.html"], [], ["a", "c"], ["--oot=x", "a"]):
        with pytest.raises(UserError):
            run(*wrong)
    with pytest.raises(UserError, match="no runs"):
        report.compare([], "x.html")
