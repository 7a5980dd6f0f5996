"""Retention keeps the last n, the best k and every m-th step, also across restarts."""

import json
import random

import pytest

from ctp_jax.errors import UserError
from ctp_jax.train import loop
from ctp_jax.train.checkpoints import layout, manager
from ctp_jax.train.checkpoints.retention import RetentionPolicy
from tests.toy_data import opener, toy_config
from tests.train.checkpoints.test_manager import state_of

ACCURACY = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.9, 5: 0.2, 6: None, 7: 0.4, 8: 0.0}


def evaluation(results, evaluated=True, by_all=True):
    return {"results": results, "evaluated": evaluated, "by_all_evaluators": by_all}


def meta_of(step):
    value = ACCURACY[step]
    if value is None:  # between two evaluations: the numbers of the one before
        return evaluation({"accuracy": 1.0}, evaluated=False)
    return evaluation({"accuracy": value, "loss": 1 - value})


def save(workdir, keep, steps):
    checkpoints = manager.Checkpoints(workdir, keep, lambda line: None)
    for step in steps:
        checkpoints.save(step, state_of(step), meta_of(step))
    checkpoints.close()


def there(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (RetentionPolicy(1, 1, "-loss"), [4, 8]),  # of equals the newer
        (
            RetentionPolicy(2, 1, "accuracy", lambda step: step % 3 == 0),
            [3, 4, 6, 7, 8],
        ),
    ],
)
def test_what_stays(tmp_path, keep, left, restarts):
    for steps in [[s] for s in ACCURACY] if restarts else [list(ACCURACY)]:
        save(tmp_path, keep, steps)
    assert there(tmp_path) == left


def test_surplus_against_the_words():
    """Random scores, compared with the three conditions one by one."""
    rng = random.Random(0)
    for _ in range(300):
        steps = sorted(rng.sample(range(40), rng.randrange(1, 12)))
        scores = {s: rng.choice([None, 0.0, 1.0, rng.random()]) for s in steps}
        last, best, every = rng.randrange(1, 4), rng.randrange(4), rng.randrange(2, 9)
        keep = RetentionPolicy(
            last, best, "x", lambda step, every=every: step % every == 0
        )
        gone = keep.surplus(scores)
        for step in steps:
            newer = sum(other > step for other in steps)
            mine = scores[step]
            better = sum(
                s is not None and mine is not None and (s, other) > (mine, step)
                for other, s in scores.items()
            )
            is_best = mine is not None and better < best
            stays = newer < last or is_best or step % every == 0
            assert (step in gone) == (not stays)


def test_not_a_number_is_no_score():
    keep = RetentionPolicy(1, 1, "-loss")
    for value, score in ((2.0, -2.0), (float("nan"), None), ([1.0], None)):
        assert keep.score({"results": {"loss": value}, "evaluated": True}) == score
    assert keep.score({"results": {"loss": 2.0}, "evaluated": False}) is None
    assert keep.score({"results": {}, "evaluated": True}) is None


def test_an_unknown_number_is_said_once(tmp_path):
    said = []
    checkpoints = manager.Checkpoints(
        tmp_path, RetentionPolicy(1, 2, "-typo"), said.append
    )
    checkpoints.save(1, state_of(1), evaluation({}, evaluated=False))
    checkpoints.save(2, state_of(2), evaluation({"loss": 1.0}, by_all=False))
    assert said == []
    for step in (3, 4):
        checkpoints.save(step, state_of(step), meta_of(step))
    checkpoints.close()
    (line,) = said
    assert "config.keep_best_by = '-typo'" in line and "accuracy, loss" in line


def test_an_evaluation_that_is_made_later_counts_in_this_process(tmp_path):
    policy, pending = RetentionPolicy(1, 1, "accuracy"), meta_of(6)
    checkpoints = manager.Checkpoints(tmp_path, policy, lambda line: None)
    checkpoints.save(1, state_of(1), meta_of(1))
    checkpoints.save(2, state_of(2), pending)
    checkpoints.note_evaluation(2, evaluation({"accuracy": 0.5}))
    for step in (3, 5):
        checkpoints.save(step, state_of(step), meta_of(step))
    checkpoints.close()
    assert there(tmp_path) == [2, 5]
    # The next process only knows the saved scores, by which 5 is better than 2.
    save(tmp_path, policy, [8])
    assert there(tmp_path) == [5, 8]


def test_nothing_is_deleted_while_a_step_cannot_be_read(tmp_path, monkeypatch):
    keep, said = RetentionPolicy(1, 1, "accuracy"), []
    save(tmp_path, keep, [1, 2])
    checkpoints = manager.Checkpoints(tmp_path, keep, said.append)

    def refused(self, step):
        raise UserError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(layout.CheckpointLayout, "read_meta", refused)
        checkpoints.save(3, state_of(3), meta_of(3))
        checkpoints.wait()
    assert there(tmp_path) == [2, 3]
    assert said == ["note: no checkpoint is deleted this time: no answer"]
    checkpoints.save(4, state_of(4), evaluation({}, evaluated=False))
    checkpoints.close()
    assert there(tmp_path) == [2, 4]  # the best is known again


def test_nothing_is_deleted_before_the_new_step_is_complete(tmp_path, monkeypatch):
    seen = []
    folders = layout.CheckpointLayout
    complete = folders.complete

    def watched(self, step, meta):
        seen.append(there_complete(tmp_path))
        complete(self, step, meta)
        seen.append(there_complete(tmp_path))

    monkeypatch.setattr(folders, "complete", watched)
    save(tmp_path, RetentionPolicy(1), [1, 2, 3])
    assert seen == [[], [1], [1], [1, 2], [2], [2, 3]]
    assert there(tmp_path) == [3]


def there_complete(workdir):
    names = [path.name for path in (workdir / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def test_a_run_keeps_what_its_config_asks_for(tmp_path):
    fields = {"checkpoint_every": 1.0, "keep_checkpoints": 1, "keep_every": 0.75}
    fields |= {"keep_best": 1, "keep_best_by": "accuracy", "steps": 7}
    loop.train(toy_config(**fields), tmp_path, opener())
    loop.train(toy_config(**fields | {"steps": 12}), tmp_path, opener())
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    scores = {
        line["step"]: line["accuracy"] for line in lines if line["kind"] == "eval"
    }
    assert len(scores) >= 3
    best = max(scores, key=lambda step: (scores[step], step))
    # 32 videos in batches of 8: four steps an epoch. Those to be kept are saved, too.
    assert there(tmp_path) == sorted({3, 6, 9, 12, best})
