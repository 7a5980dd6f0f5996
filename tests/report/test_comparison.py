"""The page that compares runs: groups, means and the curve over labels."""

import json
import statistics

import pytest

from ctp_jax import cli, report
from ctp_jax.errors import UserError
from ctp_jax.report import __main__, groups, read
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
    scratch, pretrained = page.table("runs", "n")
    # (50 + 52 + 57) / 3 = 53; sqrt((9 + 1 + 16) / 2) = 3.606
    assert scratch[:3] == ["from scratch", "3", "53.0 ± 3.6 %"]
    # Mean 70.5, deviation sqrt(2 * 0.25) = 0.707.
    assert pretrained[:3] == ["from pre", "2", "70.5 ± 0.7 %"]
    rows = page.table("run")
    assert [row[:3] for row in rows[2:4]] == [
        ["2", "2", "from scratch"],
        ["p_pre0", "0", "pre"],
    ]
    # Best mean; best run; the other metrics are the same in all.
    assert sorted(page.strong) == sorted(2 * ["70.5 ± 0.7 %", "71.0 %"])
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
    rows = page.table("labels", "from scratch", "from pre0 / pre1")
    assert rows == [
        ["10 %", "35.0 % 34.0 % to 36.0 % n = 2", "55.0 % 54.0 % to 56.0 % n = 2"],
        ["50 %", "51.0 % 50.0 % to 52.0 % n = 2", "61.0 % 60.0 % to 62.0 % n = 2"],
        ["100 %", "71.0 % 70.0 % to 72.0 % n = 2", "75.0 % 74.0 % to 76.0 % n = 2"],
    ]
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
    # Among runs with as many labels: pretrained, of which seed 1.
    assert {"55.0 ± 1.4 %", "61.0 ± 1.4 %", "75.0 ± 1.4 %"} <= set(page.strong)
    assert {"56.0 %", "62.0 %", "76.0 %"} <= set(page.strong)
    assert "36.0 %" not in page.strong
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


def test_a_run_without_the_field_has_all_labels(tmp_path):
    make_runs.recognition(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    del config["data"]["fraction"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    make_runs.recognition(tmp_path / "new", seed=1)
    (group,) = groups.group([read.read(tmp_path / n) for n in ("old", "new")])
    assert len(group.runs) == 2


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


def test_the_lowest_loss_is_the_best_and_baselines_are_not_judged(tmp_path):
    workdirs = []
    for number, (iou, loss) in enumerate([(0.6, 0.4), (0.7, 0.2)]):
        workdirs.append(tmp_path / str(number))
        make_runs.write_config(workdirs[-1], **{"model.width": number})
        values = {"iou": iou, "iou_stay_put": 0.5 + number / 10, "loss": loss}
        make_runs.write_metrics(workdirs[-1], make_runs.eval_lines(**values))
    assert sorted(compare(tmp_path, workdirs).strong) == ["0.200", "0.700"]


def test_different_tasks_side_by_side(tmp_path):
    make_runs.pretraining(tmp_path / "pre")
    make_runs.recognition(tmp_path / "rec", names=("<b>", "y"))
    make_runs.retrieval(tmp_path / "ret")
    (tmp_path / "bare" / "checkpoints").mkdir(parents=True)
    (tmp_path / "bare" / "config.json").write_text('{"data": ')
    names = ["pre", "rec", "ret", "bare"]
    page = compare(tmp_path, [tmp_path / name for name in names])
    assert [row[0] for row in page.table("run")] == names
    assert page.table("field")[0][0] == "task"
    assert "bare: config.json: damaged" in page.text


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    for name in ("a", "b"):
        make_runs.pretraining(tmp_path / name / "run")
    again = tmp_path / "a" / "." / "run"
    page = compare(tmp_path, [tmp_path / "a/run", tmp_path / "b/run", again])
    assert [row[0] for row in page.table("run")] == ["a/run", "b/run"]
    assert "Comparison of 2 runs" in page.text


def test_deviation_is_that_of_a_sample():
    values = [1.0, 2.0, 4.0]
    mean, deviation = groups.mean_and_deviation(values)
    assert mean == pytest.approx(7 / 3)
    assert deviation == pytest.approx(statistics.variance(values) ** 0.5)
    assert groups.mean_and_deviation([3.0]) == (3.0, None)


def test_table_of_seeds(tmp_path):
    for seed, top1 in enumerate((0.2, 0.3, 0.7)):
        make_runs.write_config(tmp_path / f"a{seed}", seed=seed)
        lines = make_runs.eval_lines(top1=top1)
        make_runs.write_metrics(tmp_path / f"a{seed}", lines)
    make_runs.write_config(tmp_path / "b", freeze=True)
    make_runs.write_metrics(tmp_path / "b", make_runs.eval_lines(top1=0.9))
    names = [f"a{seed}" for seed in range(3)] + ["b"]
    _, count, top1 = report.table([tmp_path / name for name in names]).splitlines()
    assert count.split() == ["runs", "3", "1"]
    # Mean 0.4; deviations -0.2, -0.1, 0.3: sqrt(0.14 / 2) is 0.265.
    words = top1.split()
    assert words[2:] == ["40.0", "±", "26.5", "%", "90.0", "%"]


def test_one_run_per_seed_counts_if_it_is_finished(tmp_path):
    # 0.9 is of a run that was cut, and seed 0 was run twice.
    runs = [(0, 0.2, 300), (0, 0.2, 300), (1, 0.4, 300), (2, 0.9, 100)]
    for i, (seed, top1, steps) in enumerate(runs):
        make_runs.write_config(tmp_path / str(i), seed=seed)
        lines = make_runs.eval_lines(steps=steps, top1=top1)
        make_runs.write_metrics(tmp_path / str(i), lines)
    table = report.table([tmp_path / str(i) for i in range(4)])
    _, count, top1 = (line.split() for line in table.splitlines())
    assert count == ["runs", "2", "of", "4"]
    # The sample deviation of 0.2 and 0.4 is 0.1 times the root of 2.
    assert top1[2:] == ["30.0", "±", "14.1", "%"]


def test_the_best_are_sought_among_comparable_runs(tmp_path):
    scores = {"ucf": (0.8, 0.7), "hmdb": (0.5, 0.3)}
    for data, values in scores.items():
        for i, value in enumerate(values):
            place = tmp_path / f"{data}{i}"
            make_runs.write_config(place, init_from=str(i), **{"data.name": data})
            make_runs.write_metrics(place, make_runs.eval_lines(top1=value))
    page = compare(tmp_path, sorted(tmp_path.iterdir()))
    assert sorted(page.strong) == ["50.0 %", "80.0 %"]


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        __main__.FLAGS.unparse_flags()
        __main__.main(cli.parse(["report", *arguments], __main__.FLAGS, ""))
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
        ["a", "b"],
        ["top-1", "accuracy", "50.0", "%", "25.0", "%"],
        ["top-5", "accuracy", "75.0", "%", "–"],
    ]
    assert "Comparison of 2 runs" in (tmp_path / "comparison.html").read_text()
    assert run("a", "--out=one.html") == "one.html\n"
    assert "Configuration" in (tmp_path / "one.html").read_text()
    for wrong in (["a", "b", "--out=nowhere/x.html"], [], ["a", "c"], ["--oot=x", "a"]):
        with pytest.raises(UserError):
            run(*wrong)
    with pytest.raises(UserError, match="no runs"):
        report.compare([], "x.html")
