"""Numbers of tracking in whole videos, against loops in float64."""

from types import SimpleNamespace

import numpy as np
import pytest

from ctp_jax.errors import UserError
from ctp_jax.evaluators import sequences, tracks

T = 4
LENGTHS = (6, 4, 1, 12)  # windows: 2, 1, 1, 4
WIDTH, HEIGHT = 200, 100


class Held(SimpleNamespace):
    """What the evaluator reads of `ctp_jax.data.records.Records`."""

    def id_of(self, number):
        return f"v{number}"


HELD = Held(
    name="made",
    split="val",
    num_frames=np.array(LENGTHS),
    width=np.full(4, WIDTH),
    height=np.full(4, HEIGHT),
)


def box_iou(a, b):
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    both = max(width, 0.0) * max(height, 0.0)
    areas = [max(c[2] - c[0], 0.0) * max(c[3] - c[1], 0.0) for c in (a, b)]
    return both / (sum(areas) - both) if sum(areas) > both else 0.0


def toolkit_iou(a, b):
    """As GOT-10k's toolkit describes it: left, top, width, height, bound to the image."""

    def bound(box):
        x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
        x, y = min(max(x, 0), WIDTH), min(max(y, 0), HEIGHT)
        w, h = min(max(w, 0), WIDTH - x), min(max(h, 0), HEIGHT - y)
        return x, y, x + w, y + h

    return box_iou(bound(a), bound(b))


def make(seed=0, objects=1):
    """For each video true, chained (f, n, 4) and, per window, given boxes; visibility."""
    rng = np.random.default_rng(seed)
    videos = []
    for count in LENGTHS:
        low = rng.uniform(-0.1, 0.7, (count, objects, 2))
        truth = np.concatenate([low, low + rng.uniform(0.1, 0.4, low.shape)], -1)
        chained = truth + rng.normal(0, 0.08, truth.shape)
        windows = range(0, max(count - 1, 1), T - 1)
        given = [truth + rng.normal(0, 0.05, truth.shape) for _ in windows]
        visible = rng.random((count, objects)) < 0.8
        visible[0] = True
        videos.append((truth, chained, given, visible))
    return videos


def feed(evaluator, videos, leave_out=()):
    """All windows, in a random order, between rows of padding."""
    rows = []
    for number, (truth, chained, given, visible) in enumerate(videos):
        for which in range(len(given)):
            times = np.minimum(which * (T - 1) + np.arange(T), len(truth) - 1)
            if (number, which) not in leave_out:
                rows.append(
                    (number, which, times, truth, chained, given[which], visible)
                )
    order = np.random.default_rng(1).permutation(len(rows))
    evaluator.reset()
    for i in order:
        number, which, times, *values, visible = rows[i]
        boxes = [value[times].swapaxes(0, 1) for value in values]
        names = ("boxes", "chained", "predicted")
        padded = {n: np.stack([b, np.full_like(b, 1e9)]) for n, b in zip(names, boxes)}
        seen = visible[times].swapaxes(0, 1).astype(np.float32)
        padded["visibility"] = np.stack([seen * 0.25, np.ones_like(seen)])
        batch = {
            "mask": np.float32([1, 0]),
            "index": np.int32([number, 0]),
            "choice": np.int32([[which], [0]]),
            "times": np.stack([times, times])[:, None],
        }
        evaluator.update(batch, padded)


@pytest.mark.parametrize("objects", [1, 2])
def test_numbers(objects):
    videos = make(objects=objects)
    evaluator = sequences.SequencesEvaluator(HELD)
    feed(evaluator, videos)
    found = dict(evaluator.results())
    pixels = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    windows, windows_all, per_frame = [], [], [[] for _ in range(T)]
    stay, overlaps, overlaps_stay, size = [], [], [], []
    centre, centre_stay = [], []
    shares, of_video = [], []
    for number, (truth, chained, given, visible) in enumerate(videos):
        for n in range(objects):
            for which, boxes in enumerate(given):
                first = which * (T - 1)
                at = [i for i in range(first, min(first + T, len(truth)))]
                if len(at) < min(T, len(truth)):
                    continue  # the rest of a video
                if not visible[first, n] or not visible[at[1:], n].any():
                    continue
                iou = {
                    i: box_iou(boxes[i, n], truth[i, n]) for i in at if visible[i, n]
                }
                windows.append(np.mean([v for i, v in iou.items() if i > first]))
                windows_all.append(np.mean(list(iou.values())))
                for i, value in iou.items():
                    per_frame[i - first].append(value)
                stay.append(
                    np.mean(
                        [
                            box_iou(truth[first, n], truth[i, n])
                            for i in iou
                            if i > first
                        ]
                    )
                )
            for i in range(1, len(truth)):
                if not visible[i, n]:
                    continue
                a, b = chained[i, n] * pixels, truth[i, n] * pixels
                overlaps.append(toolkit_iou(a, b))
                overlaps_stay.append(toolkit_iou(truth[0, n] * pixels, b))
                of_video.append(number)
                middle = (a[:2] + a[2:] - b[:2] - b[2:]) / 2
                centre.append(np.hypot(*middle))
                moved = (truth[0, n] - truth[i, n]) * pixels
                centre_stay.append(np.hypot(*(moved[:2] + moved[2:]) / 2))
                roots = [
                    np.sqrt(max(c[2] - c[0], 0) * max(c[3] - c[1], 0)) for c in (a, b)
                ]
                size.append(abs(roots[0] - roots[1]))
                shares.append((centre[-1] / roots[1], size[-1] / roots[1]))
    expected = {
        "window_iou": np.mean(windows),
        "window_iou_all": np.mean(windows_all),
        "window_iou_per_frame": [np.mean(each) for each in per_frame],
        "window_iou_stay_put": np.mean(stay),
        "ao": np.mean(overlaps),
        "sr50": np.mean(np.array(overlaps) > 0.5),
        "sr75": np.mean(np.array(overlaps) > 0.75),
        "ao_stay_put": np.mean(overlaps_stay),
        "track_center_error": np.mean(centre),
        "track_center_error_stay_put": np.mean(centre_stay),
        "track_size_error": np.mean(size),
        "track_center_error_share": np.mean(shares, axis=0)[0],
        "track_size_error_share": np.mean(shares, axis=0)[1],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)
    # Objects of a video count together: their gains are not independent.
    gains = np.array(overlaps) - overlaps_stay
    rest = [
        (gains[of] - gains.mean()).sum()
        for of in (np.array(of_video) == number for number in set(of_video))
    ]
    error = np.sqrt(np.sum(np.square(rest)) * len(rest) / (len(rest) - 1)) / len(gains)
    assert found["ao_gain_error"] == pytest.approx(error)
    assert found["window_iou_per_frame_stay_put"][0] == pytest.approx(1.0)
    assert len(found["track_per_frame"]) == max(LENGTHS)
    # `videos` are those of the evaluator `tracking`, which a run may have, too.
    assert found["sequences_videos"] == len(LENGTHS) and "videos" not in found
    assert not any(name.endswith("_kcf") for name in found)


def test_kcf_is_given_what_the_network_is(monkeypatch):
    """The first box of a window, and of a video; each is followed once in a run."""
    asked = []

    def drift(records, wanted):
        asked.append(len(wanted))
        return [box + 0.01 * np.arange(len(times))[:, None] for _, times, box in wanted]

    monkeypatch.setattr(sequences, "follow_with_kcf", drift)
    videos = make(objects=2)
    evaluator = sequences.SequencesEvaluator(HELD, kcf=True)
    for _ in range(2):
        feed(evaluator, videos)
        found = dict(evaluator.results())
    assert asked[1] == 0
    pixels = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    windows, overlaps = [], []
    for truth, _, given, visible in videos:
        for n in range(2):
            drifted = truth[0, n] + 0.01 * np.arange(len(truth))[:, None]
            overlaps += [
                toolkit_iou(drifted[i] * pixels, truth[i, n] * pixels)
                for i in range(1, len(truth))
                if visible[i, n]
            ]
            for first in range(0, len(given) * (T - 1), T - 1):
                after = [i for i in range(first + 1, first + T) if i < len(truth)]
                seen = [i for i in after if visible[i, n]]
                if len(after) == T - 1 and visible[first, n] and seen:
                    start = truth[first, n]
                    each = [
                        box_iou(start + 0.01 * (i - first), truth[i, n]) for i in seen
                    ]
                    windows.append(np.mean(each))
    assert found["window_iou_kcf"] == pytest.approx(np.mean(windows))
    assert found["ao_kcf"] == pytest.approx(np.mean(overlaps))


def test_without_a_frame_to_score_there_is_no_score():
    held = Held(**{**vars(HELD), "num_frames": np.ones(4, int)})
    evaluator = sequences.SequencesEvaluator(held)
    box = np.full((1, 1, 4), 0.5) + [0, 0, 0.1, 0.1]
    feed(evaluator, [(box, box, [box], np.ones((1, 1), bool))])
    found = dict(evaluator.results())
    assert not {"ao", "sr50", "window_iou"} & found.keys()
    assert found["sequences_videos"] == 1


def test_a_box_left_of_the_image_is_moved_as_the_toolkit_does():
    a, b = np.array([[-0.2, 0.1, 0.2, 0.5]]), np.array([[0.0, 0.1, 0.4, 0.5]])
    assert tracks.official_iou(a, b)[0] == pytest.approx(1)


def test_a_video_with_a_gap_is_left_out():
    videos = make()
    whole, gap = (sequences.SequencesEvaluator(HELD) for _ in range(2))
    feed(whole, [*videos[:3], videos[3]])
    feed(gap, videos, leave_out={(3, 1)})
    assert [track.number for track in gap._tracks()] == [0, 1, 2]
    assert gap.notes() == whole.notes() == []
    overlap = np.concatenate([track.scored("") for track in whole._tracks()[:3]])
    assert dict(gap.results())["ao"] == pytest.approx(overlap.mean())


def test_nothing_to_follow_is_said():
    videos = make()
    for *_, visible in videos:
        visible[0] = False
    evaluator = sequences.SequencesEvaluator(HELD)
    feed(evaluator, videos)
    with pytest.raises(UserError, match="made: no video of split 'val' has an object"):
        dict(evaluator.results())


def test_a_missing_tracker_is_one_line(monkeypatch):
    from ctp_jax import trackers

    def require(name):
        raise UserError("there is none")

    monkeypatch.setattr(trackers, "require", require)
    evaluator = sequences.SequencesEvaluator(HELD, kcf=True)
    feed(evaluator, make())
    assert "ao_kcf" not in dict(evaluator.results())
    assert evaluator.notes() == ["no baseline of KCF: there is none"]
