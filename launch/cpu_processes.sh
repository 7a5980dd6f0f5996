#!/usr/bin/env bash
# One machine's CPU as if it were N hosts: to try a run of many processes before it goes
# to a cluster. The project's tests use it.
#
#   launch/cpu_processes.sh N CONFIG WORKDIR [--config.x=y ...]
#
# Ctrl-C or SIGTERM reaches every process: they agree on a step, save it and end. The
# same command again resumes. Lines of process 1 and up begin with its number. Returns
# 0, or the first exit code that is not.
#
#   PYTHON   which Python (python3)
#   GRACE    seconds for the others to end by themselves once one has failed (30)
#   XLA_FLAGS=--xla_force_host_platform_device_count=K   K devices per process (1)
set -euo pipefail
if [ $# -lt 3 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 N CONFIG WORKDIR [--config.x=y ...]" >&2
  exit 2
fi
count=$1 config=$2 workdir=$3
shift 3
cd "$(dirname "$0")/.."
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
# Large pages: steps are faster (docs/performance.md).
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}
python=${PYTHON:-python3}
free='import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
port=$("$python" -c "$free")

start() { # INDEX [FLAG ...]: becomes that process
  exec "$python" -m ctp_jax.main --config="$config" --workdir="$workdir" \
    --coordinator="localhost:$port" --process_count="$count" --process_index="$1" \
    "${@:2}"
}

pids=()
to_all() {
  for pid in "${pids[@]}"; do kill -s "$1" "$pid" 2>/dev/null || true; done
}
trap 'to_all TERM' TERM
trap 'to_all INT' INT
# A process group each: a terminal sends Ctrl-C to its whole group, and a process that
# gets it from there and from here would take the second one for "do not wait".
set -m
for ((i = 0; i < count; i++)); do
  if ((i == 0)); then
    start 0 "$@" </dev/null &
  else
    start "$i" "$@" </dev/null > >(exec sed -u "s/^/[$i] /") 2>&1 &
  fi
  pids+=($!)
done
set +m

code=0
while ((${#pids[@]})); do
  sleep 0.2 || true # Ctrl-C ends it as well
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    status=0
    wait "${pids[i]}" || status=$?
    unset "pids[i]"
    ((status)) || continue
    echo "process $i ended with $status" >&2
    ((code)) || { code=$status && deadline=$((SECONDS + ${GRACE:-30})); }
  done
  # Normally they have noticed and said so themselves by now.
  ((code == 0 || SECONDS < deadline)) || to_all KILL
done
exit "$code"
