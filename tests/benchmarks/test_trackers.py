"""The table of the trackers."""

from benchmarks import trackers


def test_the_table_has_a_row_per_tracker(monkeypatch, capsys):
    monkeypatch.setattr(trackers, "SIDES", (36.0,))
    monkeypatch.setattr(trackers, "SEEDS", range(1))
    monkeypatch.setattr(trackers.trackers, "TRACKERS", ("kcf", "median_flow"))
    trackers.main()
    head, kcf, flow = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["tracker", "ms"]
    # KCF keeps the size: 1.02 to the power of 15. Median flow adapts it.
    assert kcf.split()[:1] == ["kcf"] and kcf.split()[3] == "1.35"
    assert flow.split()[0] == "median_flow" and float(flow.split()[3]) < 1.35**0.5
    assert float(kcf.split()[2]) <= 1 and float(flow.split()[2]) <= 1
