#!/usr/bin/env bash
# One machine: every GPU of it, or its CPU. Ctrl-C or SIGTERM saves; running it again
# resumes. Pick GPUs with CUDA_VISIBLE_DEVICES=0,1.
#
#   launch/one_host.sh configs/ucf_r3d.py runs/ucf_r3d [--config.x=y ...]
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 CONFIG WORKDIR [--config.x=y ...]" >&2
  exit 2
fi
config=$1 workdir=$2
shift 2
cd "$(dirname "$0")/.."
# The step donates its state, so nearly all of the memory may be preallocated.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
# Large pages: steps on CPUs are faster (docs/performance.md).
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}
exec "${PYTHON:-python3}" -m ctp_jax.main --config="$config" --workdir="$workdir" "$@"
