#!/usr/bin/env bash
# Everything that benchmarks/ can say about the training step of this machine's GPU (or
# whatever JAX finds), in less than ten minutes:
#
#     benchmarks/accelerator.sh FOLDER
#
# Writes FOLDER/summary.txt and, per part, NAME.txt and NAME.json. A part that fails or
# runs out of time is named in the summary and does not stop the others; the most
# important come first. Needs no TensorFlow, no data and no network; PyTorch if there is
# one. Settings, by environment:
#
#     PYTHON=python3      TOTAL=585 (seconds)
#     WIDTH=1 SLOW=1      (for a trial on a CPU: of the network; times the parts' limits)
#     BATCHES=32,64       BATCH=32 (for parts with one batch size)
#     ROUNDS=3 STEPS=10   (timed calls of a side, steps in each)
#     CONV=auto           (values of config.model.conv to compare, the first is ours)
#     PEERS=eager,compile (of PyTorch; empty: without)
#     MATRIX=0            (side of the matrices of the ceiling; 0: large)
set -u

if [ $# -ne 1 ]; then
  echo "usage: $0 FOLDER" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2

python=${PYTHON:-python3}
total=${TOTAL:-585}
width=${WIDTH:-1}
batches=${BATCHES:-32,64}
batch=${BATCH:-32}
rounds=${ROUNDS:-3}
steps=${STEPS:-10}
conv=${CONV:-auto}
peers=${PEERS-eager,compile}
matrix=${MATRIX:-0}
slow=${SLOW:-1}

# PyTorch needs its share of the memory.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
# What one part has compiled the next need not.
export JAX_COMPILATION_CACHE_DIR=$out/cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
given_flags=${XLA_FLAGS:-}
failed=0
SECONDS=0

say() {
  echo "$@" | tee -a "$out/summary.txt"
}

# part NAME LIMIT MODULE [FLAG ...]: a benchmark with a time limit of its own
part() {
  local name=$1 limit=$(($2 * slow)) module=$3 code=0 left=$((total - SECONDS)) began=$SECONDS
  shift 3
  if [ "$left" -lt 5 ]; then
    say "$name: left out, no time"
    failed=$((failed + 1))
    return
  fi
  [ "$limit" -lt "$left" ] || limit=$left
  timeout --kill-after=10 "$limit" "$python" -m "benchmarks.$module" "$@" \
    >"$out/$name.txt" 2>&1 || code=$?
  case $code in
    0) say "$name: done in $((SECONDS - began)) s" ;;
    124 | 137) say "$name: stopped after $((SECONDS - began)) s, see $name.txt" ;;
    *) say "$name: failed ($code): $(tail -n 1 "$out/$name.txt" | cut -c 1-200)" ;;
  esac
  [ "$code" -eq 0 ] || failed=$((failed + 1))
}

# step NAME LIMIT [FLAG ...]: the training step
step() {
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" train_step --width "$width" --rounds "$rounds" \
    --steps "$steps" --matrix "$matrix" --json "$out/$name.json" "$@"
}

# with_flags NAME FLAGS: the training step under other flags of XLA, which ends a
# process for a flag that it does not know
with_flags() {
  export XLA_FLAGS="$given_flags $2"
  step "flags_$1" 45 --models r3d18 --dtypes bfloat16 --batches "$batch" --conv "$first" \
    --phases step --peers '' --no_given
  export XLA_FLAGS=$given_flags
}

: >"$out/summary.txt"
say "$(date -u) $(git rev-parse --short HEAD 2>/dev/null)"
nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.max.sm \
  --format=csv,noheader 2>/dev/null | tee -a "$out/summary.txt"
"$python" -m pip list 2>/dev/null | grep -iE '^(jax|flax|torch|numpy|nvidia|triton)' \
  >"$out/versions.txt"
first=${conv%%,*}

part ceilings 30 ceilings --rounds "$rounds" --json "$out/ceilings.json"
step r3d18_bfloat16 150 --models r3d18 --dtypes bfloat16 --batches "$batches" \
  --conv "$conv" --peers "$peers" --phases step
XLA_FLAGS="$given_flags --xla_gpu_enable_command_buffer=" part profile 60 profile_step \
  --batch "$batch" --width "$width" --dtype bfloat16 --conv "$first" --steps 5 \
  --json "$out/profile.json" --hlo "$out/step.hlo.txt"
step conv_ways 60 --models r3d18 --dtypes bfloat16 --batches "$batch" \
  --conv direct,folded,taps --phases step --peers '' --no_given
part transfer 40 transfer --batch "$batch" --width "$width" --rounds "$rounds" \
  --steps "$steps" --json "$out/transfer.json"
step r2plus1d18_bfloat16 100 --models r2plus1d18 --dtypes bfloat16 --batches "$batch" \
  --conv "$first" --peers "${peers%%,*}" --phases step --no_given
step r3d18_float32 80 --models r3d18 --dtypes float32 --batches "$batch" \
  --conv "$first" --peers "${peers%%,*}" --phases step --no_given
part ops 40 ops --json "$out/ops.json"
part conv3d 60 conv3d --dtype bfloat16 --batch "$batch" --json "$out/conv3d.json" \
  --impls direct,folded,taps
with_flags no_command_buffer --xla_gpu_enable_command_buffer=
with_flags latency_hiding --xla_gpu_enable_latency_hiding_scheduler=true
with_flags conv_nhwc --xla_gpu_force_conv_nhwc=true
with_flags no_triton_gemm --xla_gpu_enable_triton_gemm=false
step r3d18_forward 60 --models r3d18 --dtypes bfloat16 --batches "$batch" \
  --conv "$first" --peers "${peers%%,*}" --phases forward --no_given

say "all in $SECONDS s; $failed parts failed"
rm -rf "$out/cache"
for name in ceilings r3d18_bfloat16 conv_ways transfer profile; do
  echo
  cat "$out/$name.txt"
done 2>/dev/null | tail -n 100
