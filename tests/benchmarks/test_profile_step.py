"""How benchmarks/profile_step.py finds out what an operation is for."""

import pytest

from benchmarks import profile_step

PROGRAM = """
%fused.1 (p: f32[8]) -> f32[8] {
  %p = f32[8] parameter(0)
  %a = f32[8] negate(%p), metadata={op_name="jit(f)/jvp(drawing)/dot"}
  %b = f32[8] negate(%a), metadata={op_name="jit(f)/jvp(drawing)/dot"}
  ROOT %c = f32[8] add(%b, %p), metadata={op_name="jit(f)/jvp(ResNet3D)/stem/bn/add"}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  %conv.clone = (f32[8], u8[4]) custom-call(%x), custom_call_target="__onednn$convolution"
  %nameless = f32[8] fusion(%x), kind=kLoop, calls=%fused.1
  ROOT %named = f32[8] fusion(%x), calls=%fused.1, metadata={op_name="jit(f)/jvp(ResNet3D)/stem/conv/d"}
}
"""


def test_a_fusion_without_a_name_is_for_what_most_of_it_is_for():
    found = profile_step.purposes(PROGRAM)
    assert found["a"] == ("drawing", "jit(f)/jvp(drawing)/dot")
    assert found["nameless"] == found["a"]
    assert found["named"][0] == "convolution, forward"
    assert found["c"][0] == "normalisation, forward"
    assert found["x"] == ("the rest", "")
    assert found["conv.clone"] == ("convolution, backward", "")


@pytest.mark.parametrize(
    "name, want",
    [
        ("jit(f)/jvp(ResNet3D)/stage2_block1/shortcut_conv/d", "convolution, forward"),
        (
            "jit(f)/transpose(jvp(ResNet3D))/stage1_block1/bn2/mul",
            "normalisation, backward",
        ),
        ("jit(f)/jvp(ResNet3D)/stem/conv/bn/mul", "normalisation, forward"),
        ("jit(f)/jvp(ResNet3D)/stage1_block1/conv2/temporal/d", "convolution, forward"),
        (
            "jit(f)/transpose(jvp(ResNet3D))/stage1_block1/add",
            "ReLU and sums, backward",
        ),
        ("jit(f)/jvp(CtPHead)/temporal/conv", "head, forward"),
        ("jit(f)/optimiser/add", "optimiser"),
        ("jit(f)/mul", "the rest"),
    ],
)
def test_purposes(name, want):
    assert profile_step.purpose(name) == want


def test_times_are_added_up_per_step():
    known = {"a": ("drawing", "dot"), "b": ("drawing", "mul")}
    events = [("a", 3e6), ("b", 1e6), ("a", 3e6), ("z", 1e6)]
    by_purpose, by_operation = profile_step.add_up(events, known, steps=2)
    assert by_purpose == {"drawing": 3.5, "not in the program": 0.5}
    assert by_operation == {"a": 3.0, "b": 0.5, "z": 0.5}
