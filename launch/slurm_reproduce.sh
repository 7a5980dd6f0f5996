#!/usr/bin/env bash
# Slurm: the runs of tables as an array of jobs, one GPU each.
#
#   sbatch --array=0-7 launch/slurm_reproduce.sh table4 --root=/shared/runs [flags]
#
# from the checkout, with the environment active that Python is to come from. Options of
# sbatch go before the script and win over the lines below. One of the jobs again:
# sbatch --array=0 launch/slurm_reproduce.sh ... --shard=3/8. Draw the table at the end:
# python -m ctp_jax.reproduce table4 --root=/shared/runs --table
#SBATCH --job-name=ctp-reproduce
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
# To this script alone, which passes it on: a run that gets it twice does not save.
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ctp-reproduce-%A_%a.log
set -euo pipefail
if [ $# -lt 1 ] || [ -z "${SLURM_ARRAY_TASK_COUNT:-}" ]; then
  echo "usage: sbatch --array=0-N [options of sbatch] $0 TABLE --root=DIR [flags]" >&2
  exit 2
fi
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
if [[ " $*" != *" --shard"* ]]; then
  # With 3 or 0,5, what is left of an array, the shards would be others than before.
  if ((SLURM_ARRAY_TASK_COUNT != SLURM_ARRAY_TASK_MAX + 1)); then
    echo "--array: needs 0-N without gaps; for one job of an array: --shard=I/N" >&2
    exit 2
  fi
  set -- "$@" "--shard=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
fi

"${PYTHON:-python3}" -m ctp_jax.reproduce "$@" --wait &
pid=$!
trap 'kill -TERM "$pid" 2>/dev/null || true' TERM
code=0
wait "$pid" || code=$?
# A signal ends `wait`, not the process.
while kill -0 "$pid" 2>/dev/null; do
  code=0
  wait "$pid" || code=$?
done
# 75: stopped and saved before the end. 1 and 2 would only happen again.
((code == 75)) || exit "$code"

# A job that somebody has cancelled stays cancelled.
[[ $(scontrol show job "$SLURM_JOB_ID") == *JobState=RUNNING* ]] || exit "$code"
if ((${SLURM_RESTART_COUNT:-0} >= ${MAX_REQUEUES:-100})); then
  echo "not requeued: that was number ${SLURM_RESTART_COUNT}; sbatch again to go on" >&2
  exit "$code"
fi
# This ends the job, so it is the last command.
scontrol requeue "$SLURM_JOB_ID"
