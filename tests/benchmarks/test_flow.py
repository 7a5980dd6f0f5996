"""The table of the ways to compute flow."""

from benchmarks import flow
from ctp_jax.flow import STEPS


def test_the_table_has_a_row_per_motion(monkeypatch, capsys):
    monkeypatch.setattr(flow, "MOTIONS", ((0.0, 0.0), (1.3, -0.6)))
    flow.main()
    head, still, moving = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "motion tvl1 error tvl1 ms dis error dis ms"
    assert still.split()[2] == still.split()[4] == "0"
    level = flow.BOUND / STEPS  # what a file can tell apart
    assert all(0 < float(moving.split()[i]) < level for i in (2, 4))
