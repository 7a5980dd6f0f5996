"""The arithmetic of benchmarks/roofline.py, on a network that can be done by hand."""

import pytest

from benchmarks import count, pretraining, roofline

CHIP = roofline.Chip(flops=100.0, wide=10.0, bandwidth=20.0)


def layer(name, kind, flops=0, inputs=0, outputs=0, weights=0, wide=False):
    return count.Layer(name, kind, flops, 2 * flops, inputs, outputs, weights, wide)


LAYERS = [
    layer("stem", "conv", flops=1000, inputs=3, outputs=5, weights=7),
    layer("bn", "norm", inputs=5, outputs=5, weights=2),
    layer("next", "conv", flops=400, inputs=5, outputs=40, weights=11),
    layer("block", "sum", inputs=5, outputs=40),
    layer("dense", "dense", flops=50, inputs=40, outputs=4, weights=160, wide=True),
]


def test_traffic_and_products_by_hand():
    batch = 3
    work = roofline.step_work(LAYERS, batch)
    found = {}
    for each in work:
        key = each.layer, each.backward
        flops, moved = found.get(key, (0, 0))
        found[key] = flops + each.flops, moved + each.moved
    weights = 7 + 2 + 11 + 160
    assert found == {
        ("stem", False): (3000, 2 * 3 * 8 + 2 * 7),
        ("stem", True): (3000, 2 * 3 * 8 + 4 * 7),  # the clip needs no gradient
        ("bn", False): (0, 2 * 3 * 4 * 5),
        ("bn", True): (0, 2 * 3 * 5 * 5),
        ("next", False): (1200, 2 * 3 * 45 + 2 * 11),
        ("next", True): (2400, 2 * 2 * 3 * 45 + (2 + 4) * 11),
        ("block", False): (0, 2 * 3 * 40),
        ("block", True): (0, 2 * 3 * 40),
        ("dense", False): (150, 4 * 3 * 44 + 4 * 160),
        ("dense", True): (300, 2 * 4 * 3 * 44 + 2 * 4 * 160),
        ("optimiser", True): (0, 30 * weights),
    }


def test_a_pass_takes_as_long_as_its_scarcer_part():
    assert roofline.Work("a", "conv", False, 300, 40).seconds(CHIP) == 3
    assert roofline.Work("a", "conv", False, 100, 40).seconds(CHIP) == 2
    assert roofline.Work("a", "conv", False, 100, 40, wide=True).seconds(CHIP) == 10


def test_bounds_of_the_whole_step():
    found = roofline.bounds(LAYERS, 3, CHIP, 0.01)
    seconds = sum(each.seconds(CHIP) for each in roofline.step_work(LAYERS, 3))
    assert found["clips/s at most"] == pytest.approx(3 / seconds)
    assert found["FLOP"] == count.whole_step(LAYERS) == 3 * 1450 - 1000
    assert found["clips/s at 40 % of the ceiling"] == pytest.approx(40 / 3350)
    impossible = roofline.bounds(LAYERS, 3, CHIP, 1e6)
    assert impossible[
        "share of their bound that convolutions need at 1e+06 clips/s"
    ] == (float("inf"))


def test_every_layer_of_the_network_is_in_it():
    config = pretraining.make_config("r3d18", 1, "bfloat16")
    kinds = [each.kind for each in count.layers(config)]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "conv": 17 + 3 + 1,  # of the blocks and the stem, shortcuts, of the head
        "norm": 17 + 3,
        "sum": 8,
        "dense": 2,
    }


def test_rates_that_cannot_be_are_named(capsys):
    with pytest.raises(SystemExit):
        roofline.parse(["--bandwidth", "0"])
    assert "--bandwidth: '0': needs a number above 0" in capsys.readouterr().err


def test_drawing_is_counted_as_the_device_draws():
    for flags, backend in (
        ([], "gpu"),
        (["--chip", "v5e"], "tpu"),
        (["--tpu", "v5e:2x2"], "tpu"),
        (["--tpu", "v5e:2x2", "--as", "gpu"], "gpu"),
    ):
        assert roofline.parse(flags).traced_as == backend
