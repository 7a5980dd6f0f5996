"""What benchmarks/compiled.py counts, in a program written for it, and on an H200."""

import collections
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from benchmarks import compiled, hlo, pretraining
from ctp_jax.errors import UserError

BACKWARD = (
    'metadata={op_name="jit(step)/transpose(jvp(net))/conv1/conv_general_dilated"}'
)
FORWARD = 'metadata={op_name="jit(step)/jvp(net)/conv1/conv_general_dilated"}'
GPU = f"""
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}

%fused_turn (p: f32[6,4]) -> f32[4,6] {{
  %p = f32[6,4]{{1,0}} parameter(0)
  %doubled = f32[6,4]{{1,0}} add(%p, %p)
  ROOT %turned = f32[4,6]{{1,0}} transpose(%doubled), dimensions={{1,0}}
}}

%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %s = (s32[], f32[8]) parameter(0)
  %one = f32[8]{{0}} get-tuple-element(%s), index=1
  %two = f32[8]{{0}} copy(%one)
  %three = f32[8]{{0}} fusion(%two), kind=kLoop, calls=%fused_other
  ROOT %t = (s32[], f32[8]) tuple(%s, %three)
}}

%graph (g: f32[8]) -> f32[8] {{
  %g = f32[8]{{0}} parameter(0)
  ROOT %h = f32[8]{{0}} fusion(%g), kind=kLoop, calls=%fused_other
}}

%fused_other (o: f32[8]) -> f32[8] {{
  %o = f32[8]{{0}} parameter(0)
  ROOT %q = f32[8]{{0}} negate(%o)
}}

ENTRY %main (x: bf16[32,2,14,14,512], k: bf16[512,3,3,3,512]) -> f32[4,6] {{
  %x = bf16[32,2,14,14,512]{{4,3,2,1,0}} parameter(0)
  %k = bf16[512,3,3,3,512]{{4,3,2,1,0}} parameter(1)
  %c1 = (bf16[32,2,14,14,512]{{4,3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %k), window={{size=3x3x3 pad=1_1x1_1x1_1}}, dim_labels=b012f_o012i->b012f, custom_call_target="__cudnn$convBiasActivationForward", {FORWARD}
  %c2 = (bf16[32,2,14,14,512]{{4,3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %k), window={{size=3x3x3 pad=1_1x1_1x1_1}}, dim_labels=b012f_o012i->b012f, custom_call_target="__cudnn$convBackwardInput", {BACKWARD}
  %c3 = (bf16[512,3,3,3,512]{{4,3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %x), window={{size=3x3x3 pad=1_1x1_1x1_1}}, dim_labels=b012f_o012i->b012f, custom_call_target="__cudnn$convBackwardFilter", {BACKWARD}
  %c4 = (bf16[512,512,3,3,3]{{4,3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %x), window={{size=2x14x14 pad=1_1x1_1x1_1}}, dim_labels=bf012_oi012->bf012, custom_call_target="__cudnn$convForward", {BACKWARD}
  %c5 = (bf16[512,512,3,3,3]{{4,3,2,1,0}}, u8[0]{{0}}) custom-call(%x, %x), window={{size=2x14x14 pad=1_1x1_1x1_1}}, dim_labels=bf012_oi012->bf012, custom_call_target="__cudnn$convBackwardInput", {BACKWARD}
  %y = bf16[32,2,14,14,512]{{4,3,2,1,0}} get-tuple-element(%c1), index=0
  %loop = (s32[], f32[8]) while(%i), condition=%c, body=%body, backend_config={{"known_trip_count":{{"n":"5"}}}}
  %called = f32[8]{{0}} call(%m), to_apply=%graph, metadata={{op_name="g"}}
  %r = f32[]{{:T(128)S(1)}} reduce(%m, %zero), dimensions={{0}}, to_apply=%add
  %gathered = f32[16]{{0}} all-reduce(%m), to_apply=%add
  %b = f32[6,4]{{1,0}} bitcast(%m)
  ROOT %out = f32[4,6]{{1,0}} fusion(%b), kind=kInput, calls=%fused_turn
}}
"""


def test_calls_of_cudnn_are_told_by_what_they_are_for():
    found = hlo.Program(GPU).convolutions()
    whole = "size=3x3x3 pad=1_1x1_1x1_1"
    assert [(c.kind, c.call, c.layout, c.window == whole) for c in found] == [
        ("forward", "Forward", "channels last", True),
        ("input gradient", "BackwardInput", "channels last", True),
        ("kernel gradient", "BackwardFilter", "channels last", True),
        ("kernel gradient", "Forward", "channels first", False),
        ("kernel gradient", "BackwardInput", "channels first", False),
    ]
    assert [c.is_miss for c in found] == [False, False, False, True, True]


def test_kernels_in_loops_are_counted_as_often_as_they_run():
    found = compiled.summarise(GPU)
    # Five convolutions, reduce, all-reduce and fusion; five times two in the loop, and one
    # in the graph that is called.
    assert found["kernels"] == 8 + 5 * 2 + 1
    assert found["copies"] == (5, 5 * 8 * 4)
    assert found["transposes"] == (1, 4 * 6 * 4)
    assert found["messages"] == [16 * 4]
    assert found["misses"] == 2


def test_convolutions_of_tpus_are_told_by_their_results():
    text = f"""
%fused (x: bf16[8,16,14,14,64]) -> bf16[8,16,14,14,64] {{
  %a = bf16[8,16,14,14,64]{{4,0,3,2,1:T(8,128)(2,1)}} convolution(%x, %k), window={{size=3x3x3 pad=1_1x1_1x1_1}}, dim_labels=b012f_012io->b012f, {FORWARD}
  %b = f32[3,3,3,64,64]{{3,4,2,1,0:T(8,128)}} convolution(%x, %y), window={{size=16x14x14 pad=1_1x1_1x1_1}}, dim_labels=f012b_i012o->012bf, {BACKWARD}
  %d = bf16[8,4]{{1,0:T(8,128)}} convolution(%u, %v), dim_labels=bf_io->bf, metadata={{op_name="jit(step)/dot_general"}}
}}
ENTRY %main (x: bf16[8,16,14,14,64]) -> bf16[8,16,14,14,64] {{
  ROOT %f = bf16[8,16,14,14,64]{{4,0,3,2,1:T(8,128)(2,1)S(1)}} fusion(%x), kind=kOutput, calls=%fused
}}
"""
    found = hlo.Program(text).convolutions()
    assert [(c.kind, c.call, c.layout, c.is_miss) for c in found] == [
        ("forward", "convolution", "channels last", False),
        ("kernel gradient", "convolution", "channels last", False),
    ]


def test_what_is_not_there_is_said():
    with pytest.raises(UserError, match="--devices 3"):
        compiled.make_mesh("v5e", 3)
    with pytest.raises(UserError, match="task vcop"):
        compiled.make_config("configs/vcop.py", 8, "auto", "auto", 0)


# Two frames, three taps: forward and backward, for a chip that is not here.
ELSEWHERE = """
import json, os, sys
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import jax, jax.numpy as jnp
from unittest import mock
from benchmarks import compiled
from ctp_jax.models.conv.conv3d import conv3d
from ctp_jax.train import step, mesh as mesh_lib

jax.config.update("jax_platforms", "cpu")
chip = sys.argv[1]
mesh = compiled.make_mesh(chip, 1)
x = jax.ShapeDtypeStruct((8, 2, 14, 14, 64), jnp.bfloat16)
k = jax.ShapeDtypeStruct((3, 3, 3, 64, 64), jnp.bfloat16)

def counted(impl, **options):
    def program(x, k):
        y, pullback = jax.vjp(lambda *a: conv3d(*a, padding=(1, 1, 1), impl=impl), x, k)
        return y, pullback(jnp.sin(y))

    everywhere = mesh_lib.replicated(mesh)
    backend = "gpu" if chip == "h200" else "tpu"
    with (
        mock.patch.object(jax, "default_backend", return_value=backend),
        compiled.named_platform(),
    ):
        if chip == "h200":
            assert step.knows("xla_gpu_force_conv_nhwc", mesh)
            assert not step.knows("xla_no_such_option", mesh)
        text = jax.jit(
            program, in_shardings=everywhere, compiler_options=options
        ).lower(x, k).compile().as_text()
    found = compiled.summarise(text)
    return [each[:3] for each in found["convolutions"]], found["misses"]

nhwc = {"xla_gpu_force_conv_nhwc": True} if chip == "h200" else {}
print(json.dumps([counted("direct"), counted("direct", **nhwc), counted("auto")]))
"""


def compiled_for(chip, package, extra):
    """What was counted for 'direct', 'direct' with channels last, and 'auto'."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'needs the compiler of pip install "jax[{extra}]"')
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, chip],
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_few_frames_are_no_misses_on_an_h200():
    direct, last, auto = compiled_for("h200", "jax_cuda13_plugin", "cuda13")
    layouts = [{layout for *_, layout in found} for found, _ in (direct, last, auto)]
    assert layouts == [{"channels first"}, {"channels last"}, {"channels last"}]
    assert (direct[1], last[1], auto[1]) == (1, 1, 0)
    calls = collections.Counter(call for _, call, _ in auto[0])
    assert calls == {"Forward": 1, "BackwardInput": 1, "BackwardFilter": 1}


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["v5e", "v6e"])
def test_gradients_are_told_apart_on_tpus(chip):
    for found, misses in compiled_for(chip, "libtpu", "tpu"):
        kinds = collections.Counter(kind for kind, *_ in found)
        assert kinds == {"forward": 1, "input gradient": 1, "kernel gradient": 1}
        assert misses == 0


def test_a_batch_of_finetuning_has_no_patches():
    config = compiled.make_config(
        "configs/finetune_ucf.py:split=2", 8, "auto", "auto", 0
    )
    plan = pretraining.make_batch(config)["plan"]
    assert "boxes" not in plan
    assert plan["brightness"].shape == (8, 16)
