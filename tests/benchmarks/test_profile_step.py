"""How benchmarks/profile_step.py finds out what an operation is for."""

import pytest

from benchmarks import profile_step

PROGRAM = """
HloModule jit_train_step, is_scheduled=true

FileNames
1 "/somewhere/benchmarks/pretraining.py"
2 "/somewhere/ctp_jax/tasks/render.py"
3 "/somewhere/ctp_jax/ops/resample.py"

FunctionNames
1 "main"

FileLocations
1 {file_name_id=1 function_name_id=1 line=5}
2 {file_name_id=2 function_name_id=1 line=15}
3 {file_name_id=3 function_name_id=1 line=25}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
4 {file_location_id=3 parent_frame_id=2}

%fused.1 (p: f32[8]) -> f32[8] {
  %p = f32[8] parameter(0)
  %a = f32[8] negate(%p), metadata={op_name="jit(f)/dot" stack_frame_id=3}
  %b = f32[8] negate(%a), metadata={op_name="jit(f)/dot" stack_frame_id=3}
  ROOT %c = f32[8] add(%b, %p), metadata={op_name="jit(f)/jvp(ResNet3D)/stem/bn/add"}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  %nameless = f32[8] fusion(%x), kind=kLoop, calls=%fused.1
  %outside = f32[8] dot(%x), metadata={op_name="jit(f)/dot" stack_frame_id=4}
  ROOT %named = f32[8] fusion(%x), calls=%fused.1, metadata={op_name="jit(f)/jvp(ResNet3D)/stem/conv/d"}
}
"""


def test_purposes_come_from_names_and_from_the_callers_files():
    found = profile_step.purposes(PROGRAM)
    assert found["a"] == ("drawing", "jit(f)/dot")
    assert found["outside"][0] == "the rest"  # the same file, called by another
    assert found["nameless"] == found["a"]
    assert found["named"][0] == "convolution, forward"
    assert found["c"][0] == "normalisation, forward"


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
        ("jit(f)/mul", "the rest"),
    ],
)
def test_purposes_of_the_layers(name, want):
    assert profile_step.purpose(name, []) == want


def test_operations_of_the_optimiser():
    files = ["/x/optax/_src/update.py", "/y/ctp_jax/train/step.py"]
    assert profile_step.purpose("jit(f)/add", files) == "optimiser"


def test_times_are_added_up_per_step():
    known = {"a": ("drawing", "dot"), "b": ("drawing", "mul")}
    events = [("a", 3e6), ("b", 1e6), ("a", 3e6), ("z", 1e6)]
    by_purpose, operations = profile_step.add_up(events, known, steps=2)
    assert by_purpose == [
        ("drawing", 3.5, 87.5, 1.5),
        ("not in the program", 0.5, 12.5, 0.5),
    ]
    assert operations[0] == ("a", 3.0, 75.0, "drawing", "dot")
