"""`ctp_jax.features`, `classify` and `search`: one's own videos, without a data set."""

import csv
import io
import os
import pathlib
import shlex

import jax
import numpy as np
import pytest
from PIL import Image

import ctp_jax
from ctp_jax import classify, features, search
from ctp_jax.data import reading
from ctp_jax.errors import TryLater, UserError
from ctp_jax.evaluators import recognition
from ctp_jax.own_videos import command_line, feature_file, inference
from ctp_jax.prepare import __main__ as prepare
from ctp_jax.prepare import video as videos
from ctp_jax.tasks import base, probe
from tests.commands import call
from tests.own_videos import made

run, files = made.run, made.files  # fixtures


def flags_of(run, *more):
    return [f"--init_from={run[0]}", "--batch_size=4", "--workers=2", *more]


def test_batches_across_videos_change_nothing(run, files, monkeypatch):
    """Whichever videos a batch is of, whatever their sizes, and if they are read twice."""
    ours = ctp_jax.load_encoder(run[0])
    spec = ours.spec.clip_spec()
    wanted = [ctp_jax.read_clips(path, ours.spec, every=0.25) for path in files]
    announced = videos.announced_times

    def wrong(path):
        times, shown = announced(path)
        return times[:-8] if path in files[1::2] else times, shown

    monkeypatch.setattr(videos, "announced_times", wrong)
    found = inference.run(
        files, spec, ours.describe, every=0.25, batch_size=4, threads=2
    )
    found = {result.index: result for result in found}
    assert sorted(found) == [0, 1, 2, 3]
    for index, clips in enumerate(wanted):
        want = ours(clips)
        np.testing.assert_allclose(found[index].rows, want, rtol=1e-3, atol=1e-4)
        assert len(found[index].starts) == len(want) > 1
        assert (np.diff(found[index].starts) >= 0).all()


def test_features_are_resumed_and_bad_files_are_named(
    run, files, tmp_path, monkeypatch, capsys
):
    folder = files[0].parents[1]
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "empty.mp4").write_bytes(b"")
    (tmp_path / "bad" / "text.mp4").write_text("no video")
    whole = files[1].read_bytes()
    (tmp_path / "bad" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "new" / "features.npz"
    sources = [folder, tmp_path / "bad"]
    asked = []

    def stops(paths, *more, **options):
        """Ctrl-C after two of the videos."""
        asked.append(len(paths))
        good = (
            each for each in inference_run(paths, *more, **options) if not each.error
        )
        yield from (each for each, _ in zip(good, range(2), strict=False))
        raise KeyboardInterrupt

    inference_run = inference.run
    monkeypatch.setattr(inference, "run", stops)
    with pytest.raises(KeyboardInterrupt, match="2 videos are done: the same command"):
        call(features, *sources, *flags_of(run, f"--out={out}"))
    assert not out.exists()

    def counts(paths, *more, **options):
        asked.append(len(paths))
        return inference_run(paths, *more, **options)

    monkeypatch.setattr(inference, "run", counts)
    call(features, *sources, *flags_of(run, f"--out={out}"))
    said = capsys.readouterr()
    assert asked == [7, 5]
    assert "2 of 7 videos are there, going on" in said.out
    assert (
        "4 videos, 4 vectors of 144 numbers; files that cannot be read: 3" in said.out
    )
    step = said.out.partition("\nnext, videos that are alike:\n")[2]
    assert shlex.split(step.replace("\\\n", ""))[3:] == ["VIDEO", f"--in={out}"]
    bad = [line for line in said.err.splitlines() if line.startswith("bad: ")]
    assert len(bad) == 3 and any("empty.mp4: the file is empty" in line for line in bad)
    assert os.listdir(out.parent) == ["features.npz"]
    found = feature_file.read(out)
    assert found.video.tolist() == sorted(map(str, files))
    ours = ctp_jax.load_encoder(run[0])
    for path, vector in zip(sorted(files), found.features, strict=True):
        want = ours(ctp_jax.read_clips(path, ours.spec)).mean(axis=0)
        np.testing.assert_allclose(vector, want, rtol=1e-3, atol=1e-4)
    # All is there; other features do not go into that file.
    call(features, files[0], *flags_of(run, f"--out={out}"))
    assert asked[2:] == [0] and len(feature_file.read(out).video) == 4
    with pytest.raises(UserError, match="another encoder, or with another --every"):
        call(features, files[0], *flags_of(run, f"--out={out}", "--every=1"))
    # Two commands would each delete the unfinished part of the other.
    with (
        feature_file.locked(out),
        pytest.raises(TryLater, match="wait for it or name another --out"),
    ):
        call(features, files[0], *flags_of(run, f"--out={out}"))
    assert len(feature_file.read(out).video) == 4
    assert os.listdir(out.parent) == ["features.npz"]


def write_part(writer, name):
    writer.add(name, 1, np.zeros(1), np.full((1, 2), ord(name)))
    writer.save()


def test_unfinished_parts_are_kept_whatever_is_missing(tmp_path, capsys):
    out, about = tmp_path / "features.npz", feature_file.About("x", "y", 0.0)
    writer = feature_file.Writer(out, about)
    for name in "abc":
        write_part(writer, name)
    (tmp_path / "features.npz.partial" / "000001.npz").unlink()
    writer = feature_file.Writer(out, about)
    assert writer.known.video.tolist() == ["a", "c"]
    write_part(writer, "d")
    part = tmp_path / "features.npz.partial" / "000002.npz"
    part.write_bytes(part.read_bytes()[:100])
    writer = feature_file.Writer(out, about)
    assert f"note: {part}: is damaged" in capsys.readouterr().err
    found = writer.finish("abcd")
    assert found.video.tolist() == ["a", "d"]
    assert feature_file.read(out).features.tolist() == [[97, 97], [100, 100]]
    assert os.listdir(tmp_path) == ["features.npz"]


def test_a_name_that_parquet_cannot_hold_is_refused_at_the_start(tmp_path):
    names = ["a.mp4", "b\udcff.mp4"]
    feature_file.check_videos(tmp_path / "x.npz", names)
    with pytest.raises(UserError, match=r"\.mp4: \.parquet holds names in UTF-8 only"):
        feature_file.check_videos(tmp_path / "x.parquet", names)


def test_parquet_has_the_same(run, files, tmp_path):
    pytest.importorskip("pyarrow", reason="comes with the extra data")
    for name in ("a.npz", "a.parquet"):
        call(
            features, *files, *flags_of(run, f"--out={tmp_path / name}", "--every=0.5")
        )
    one, other = (feature_file.read(tmp_path / n) for n in ("a.npz", "a.parquet"))
    assert one.about == other.about and one.about.every == 0.5
    for name in ("video", "time", "size"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    np.testing.assert_allclose(one.features, other.features, rtol=1e-4, atol=1e-5)
    # A vector for each half of a second; 25 frames per second.
    assert [one.video.tolist().count(str(f)) for f in files] == [2, 3, 1, 2]


def test_search_finds_the_nearest_and_draws_them(run, files, tmp_path, capsys):
    gallery, out = tmp_path / "features.npz", tmp_path / "found.png"
    call(features, *files, *flags_of(run, f"--out={gallery}"))
    capsys.readouterr()
    call(search, files[2], f"--in={gallery}", f"--out={out}", "--k=2")
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == str(out)
    vectors = feature_file.read(gallery).features.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = feature_file.read(gallery).video.tolist()
    likeness = vectors @ vectors[order.index(str(files[2]))]
    likeness[order.index(str(files[2]))] = -2  # not itself
    expected = [order[i] for i in np.argsort(-likeness)[:2]]
    assert [line.split(maxsplit=1)[1] for line in lines] == expected
    shown = [float(line.split()[0]) for line in lines]
    np.testing.assert_allclose(shown, np.sort(likeness)[::-1][:2], atol=1e-3)
    with Image.open(out) as image:
        assert image.width > 3 * 160 and image.height > 120
    for wrong, message in (
        ([files[0], f"--in={tmp_path / 'none.npz'}"], "none.npz: No such file"),
        (
            [files[0], f"--in={files[0]}"],
            "name a file that `python -m ctp_jax.features`",
        ),
        ([files[0], f"--in={gallery}", "--out=a.gif"], "ends with .png or .jpg"),
        ([tmp_path / "none.mp4", f"--in={gallery}"], "none.mp4: "),
        ([f"--in={gallery}"], "0 paths: give one QUERY_VIDEO"),
    ):
        with pytest.raises(UserError, match=message):
            call(search, *wrong)


@pytest.fixture(scope="module")
def prepared(run, files, tmp_path_factory):
    """The same videos as a data set: the pipeline of a task of the run."""
    data = tmp_path_factory.mktemp("data")
    flags = [f"--videos={files[0].parents[1]}", "--name=mine", f"--data_dir={data}"]
    prepare.main(["video_folder", *flags])
    config = made.make_config(data)
    config.batch_size = len(files)
    return lambda task: base.open_pipeline(config, task, False)


def test_features_are_those_of_retrieval(run, files, prepared, tmp_path):
    """Exactly for the same frames; for the file, but for JPEG's losses."""
    config, task, variables = run[1]
    view = probe.Probe(config, task)
    pipeline = prepared(view)
    (batch,) = pipeline.eval_batches()
    features = jax.jit(view.predict)(variables, batch)["features"]
    ours = ctp_jax.load_encoder(run[0])
    records = pipeline.records
    for number, want in zip(batch["index"].tolist(), features, strict=True):
        name, count = str(records.ids[number]), int(records.num_frames[number])
        place = tmp_path / name
        place.mkdir(parents=True)
        for i, frame in enumerate(reading.stored_frames(records, number, range(count))):
            Image.fromarray(frame).save(place / f"{i:05}.png")
        got = ours(ctp_jax.read_clips(place, ours.spec)).mean(axis=0)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
        file = files[0].parents[1] / name
        got = ours(ctp_jax.read_clips(file, ours.spec)).mean(axis=0)
        assert got @ want / np.linalg.norm(got) / np.linalg.norm(want) > 0.999
        assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_classes_are_those_of_the_evaluation(run, files, prepared, tmp_path, capsys):
    """The accuracy too."""
    _, task, variables = run[1]
    pipeline = prepared(task)
    (batch,) = pipeline.eval_batches()
    outputs = jax.jit(task.predict)(variables, batch)
    judge = recognition.RecognitionEvaluator(pipeline.records, made.CLASSES)
    judge.update(batch, jax.device_get(outputs))
    judge.save(tmp_path)
    with open(tmp_path / "predictions.csv", newline="") as file:
        wanted = {row["video"]: row for row in csv.DictReader(file)}
    folder = files[0].parents[1]
    capsys.readouterr()
    call(classify, folder, *flags_of(run, "--top=1"))
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["video"] for row in found] == sorted(map(str, files))
    right = 0
    for row in found:
        path = pathlib.Path(row["video"])
        want = wanted[str(path.relative_to(folder))]
        assert row["class"] == want["predicted"]
        assert abs(float(row["probability"]) - float(want["probability"])) < 0.02
        right += row["class"] == path.parent.name
    assert right / len(found) == dict(judge.results())["top1"]
    call(classify, *files, *flags_of(run, f"--out={tmp_path / 'a.csv'}", "--top=0"))
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(files)  # each class of each video
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["video"] == second["video"]
        total = float(first["probability"]) + float(second["probability"])
        assert abs(total - 1) < 2e-4 and first["probability"] >= second["probability"]


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        (features, ["--init_from=x", "--out=x.npz"], "no VIDEO is given"),
        (features, ["a.mp4", "--out=x.npz"], "--init_from is missing"),
        (features, ["a.mp4", "--init_from=x"], "--out is missing"),
        (features, ["a.mp4", "--init_from=x", "--out=x.csv"], "ends with .npz"),
        (
            features,
            [__file__, "--init_from=none", "--out=x.npz"],
            "--init_from: none: no such",
        ),
        (classify, ["a.mp4"], "--init_from is missing"),
        (classify, [__file__, "--init_from=none"], "--init_from: none: no such folder"),
        (classify, ["a.mp4", "--init_from=x"], "a.mp4: no such file or folder: check"),
    ],
)
def test_wrong_calls_are_one_line(command, arguments, message):
    with pytest.raises(UserError, match=message):
        call(command, *arguments)


def test_a_converted_classifier_has_numbers_for_names(tmp_path):
    _, task, variables = made.make_run(tmp_path / "converted", converted=True)
    found = classify.load(str(tmp_path / "converted"))
    assert found.class_names == ("0", "1")
    spec = found.clip_spec
    assert (spec.num_clips, spec.num_frames, spec.size) == (10, 16, 112)
    pixels = np.zeros((1, 1, 16, 112, 112, 3), np.uint8)
    window = np.array([[[0, 0, 112, 112]]], np.float32)
    batch = {"frames": pixels, "window": window, "extent": window[..., 2:], "plan": {}}
    batch["flip"] = np.zeros((1, 1), bool)
    shape = jax.eval_shape(task.predict, variables, batch)["logits"].shape
    assert shape == (1, 1, 2) and found.logits(batch).shape == (1, 2)


def test_a_folder_of_numbered_images_is_a_video(tmp_path):
    for number in range(3):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{number}.png")
    assert command_line.find_videos([str(tmp_path)]) == [tmp_path]


def test_only_bad_files(run, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    for command, more in ((features, [f"--out={tmp_path / 'x.npz'}"]), (classify, [])):
        arguments = flags_of(run, *more)
        with pytest.raises(UserError, match="1 video: none can be read"):
            call(command, tmp_path, *arguments)
        with pytest.raises(UserError, match="needs videos in it"):
            call(command, run[0], *arguments)
