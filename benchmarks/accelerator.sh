#!/usr/bin/env bash
# Everything that benchmarks/ can say about the training step on this machine's GPU (or
# whatever JAX finds), in less than ten minutes:
#
#     benchmarks/accelerator.sh FOLDER
#
# Writes FOLDER/summary.txt and, per part, NAME.txt and NAME.json. A part that fails or
# runs out of time is named in the summary and does not stop the others; the most
# important come first. Needs no TensorFlow, no data and no network; PyTorch if there is
# one. Settings, by environment:
#
#     PYTHON=python3   TOTAL=585 (seconds)   BATCH=32   ROUNDS=3
#     WIDTH=1 SLOW=1   (for a trial on a CPU: of the network; times the parts' limits)
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
batch=${BATCH:-32}
rounds=${ROUNDS:-3}
width=${WIDTH:-1}
slow=${SLOW:-1}

# PyTorch needs its share of the memory.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
# What one part has compiled the next need not.
export JAX_COMPILATION_CACHE_DIR=$out/cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
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
  timeout --kill-after=10 "$limit" "$python" -m "benchmarks.$module" --rounds "$rounds" \
    --json "$out/$name.json" "$@" >"$out/$name.txt" 2>&1 || code=$?
  case $code in
    0) say "$name: done in $((SECONDS - began)) s" ;;
    124 | 137) say "$name: stopped after $((SECONDS - began)) s, see $name.txt" ;;
    *) say "$name: failed ($code): $(tail -n 1 "$out/$name.txt" | cut -c 1-200)" ;;
  esac
  [ "$code" -eq 0 ] || failed=$((failed + 1))
}

# step NAME LIMIT [FLAG ...]: the training step; later flags win
step() {
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" train_step --width "$width" --batch "$batch" --dtype bfloat16 "$@"
}

# with_flags FLAGS NAME LIMIT MODULE [FLAG ...]: under more flags of XLA, which ends a
# process for a flag that it does not know
with_flags() {
  local flags=$1
  shift
  XLA_FLAGS="${XLA_FLAGS:-} $flags" "$@"
}

: >"$out/summary.txt"
say "$(date -u) $(git rev-parse --short HEAD 2>/dev/null)"
nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.max.sm \
  --format=csv,noheader 2>/dev/null | tee -a "$out/summary.txt"
"$python" -m pip list 2>/dev/null | grep -iE '^(jax|flax|torch|numpy|nvidia|triton)' \
  >"$out/versions.txt"

step r3d18 150
with_flags --xla_gpu_enable_command_buffer= part profile 60 profile_step \
  --batch "$batch" --width "$width" --dtype bfloat16
# PyTorch at its best; a part of its own, because its search takes minutes.
step max_autotune 150 --peers max-autotune --layouts channels_last_3d
step larger_batch 100 --batch $((2 * batch)) --peers compile
step ways_of_convolution 60 --conv auto direct folded taps --peers
step r2plus1d18 100 --model r2plus1d18 --peers compile
step float32 80 --dtype float32 --peers eager
part ops 40 ops --batch "$batch"
part conv3d 60 conv3d --dtype bfloat16 --batch "$batch" --impls direct folded taps
with_flags --xla_gpu_enable_command_buffer= step no_command_buffer 45 --peers
with_flags --xla_gpu_enable_latency_hiding_scheduler=true step latency_hiding 45 --peers
with_flags --xla_gpu_force_conv_nhwc=false step channels_first 45 --peers
with_flags --xla_gpu_enable_triton_gemm=false step no_triton_gemm 45 --peers

say "all in $SECONDS s; $failed parts failed"
rm -rf "$out/cache"
for name in r3d18 max_autotune profile larger_batch ways_of_convolution; do
  echo
  cat "$out/$name.txt"
done 2>/dev/null | tail -n 100
echo
# Each beside ours of the same run; the largest is the ratio to the best PyTorch.
for name in r3d18 max_autotune; do
  say "$name: $(grep -h '^time of ours' "$out/$name.txt" 2>/dev/null)"
done
