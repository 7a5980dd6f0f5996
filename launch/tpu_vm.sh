#!/usr/bin/env bash
# Cloud TPU VM: the same command on every worker of a slice, as a systemd service there,
# which outlives the connection and gets SIGTERM when the machine shuts down.
#
#   launch/tpu_vm.sh create      # asks for the slice; `state` says when it is ACTIVE
#   launch/tpu_vm.sh install     # copies HEAD of this checkout, installs it
#   launch/tpu_vm.sh start configs/k400_r3d.py gs://BUCKET/runs/k400 \
#     --config.data.data_dir=gs://BUCKET/data [--config.x=y ...]
#   launch/tpu_vm.sh logs | stop | delete
#
# `--dry-run` before the verb prints the commands instead. In the environment: TPU (its
# name) and ZONE; for `create` TYPE, RUNTIME and, for spare capacity, SPOT=1.
set -euo pipefail
dry_run=
if [ "${1:-}" = --dry-run ]; then
  dry_run=1
  shift
fi
verb=${1:-}
shift || true
if [[ ! $verb =~ ^(create|state|ssh|install|start|logs|stop|delete)$ ]]; then
  echo "usage: $0 [--dry-run] create|state|ssh|install|start|logs|stop|delete" >&2
  exit 2
fi
: "${TPU:?set it to the name of the TPU}" "${ZONE:?set it, e.g. to us-west4-a}"

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}
queue() { run gcloud compute tpus queued-resources "$1" "$TPU" --zone="$ZONE" "${@:2}"; }
vm() { run gcloud compute tpus tpu-vm "$1" "${@:2}" --zone="$ZONE"; }
on() { vm ssh "$TPU" --worker="$1" --command="$2"; }

case $verb in
create) queue create --node-id="$TPU" --accelerator-type="${TYPE:-v5litepod-16}" \
  --runtime-version="${RUNTIME:-v2-alpha-tpuv5-lite}" ${SPOT:+--spot} ;;
state) queue describe --format="value(state.state)" ;;
delete) queue delete --force --quiet ;;
ssh) on all "${1:?the command to run on every worker}" ;;
install)
  archive=${TMPDIR:-/tmp}/ctp_jax.tar.gz
  run git -C "$(dirname "$0")/.." archive --output="$archive" HEAD
  vm scp "$archive" "$TPU:ctp_jax.tar.gz" --worker=all
  # The Python of the TPU images is older than 3.11; uv brings one.
  on all 'mkdir -p ctp_jax && tar -xzf ctp_jax.tar.gz -C ctp_jax && cd ctp_jax &&
    python3 -m pip install --quiet --user uv &&
    python3 -m uv venv --quiet --allow-existing --python=3.12 &&
    python3 -m uv pip install --quiet --editable ".[data,tpu]"'
  ;;
start)
  if [[ ${2:-} != /* && ${2:-} != gs://?*/?* ]]; then
    echo "usage: $0 start CONFIG WORKDIR [--config.x=y ...]; WORKDIR: gs://BUCKET/FOLDER," \
      "or /FOLDER on a file system that all workers mount" >&2
    exit 2
  fi
  printf -v flags ' %q' --config="$1" --workdir="$2" "${@:3}"
  # A crash is tried again, a user error (2) is not; `stop` waits for the save.
  # shellcheck disable=SC2016 # $USER and $PWD are those of the worker
  on all 'cd ctp_jax && sudo systemd-run --unit=ctp --collect --uid="$USER" \
    --working-directory="$PWD" --property=TimeoutStopSec=300 \
    --property=Restart=on-failure --property=RestartSec=30 \
    --property=RestartPreventExitStatus=2 --property=StartLimitBurst=5 \
    --property=StartLimitIntervalSec=3600 \
    "$PWD/.venv/bin/python" -m ctp_jax.main'"$flags"
  ;;
logs) on 0 "sudo journalctl --unit=ctp --output=cat --lines=100 --follow" ;;
stop) on all "sudo systemctl stop ctp" ;;
esac
