#!/usr/bin/env bash
# Slurm: one process per node, which drives all GPUs of it.
#
#   sbatch --nodes=2 launch/slurm.sh configs/k400_r3d.py /shared/runs/k400 [--config.x=y ...]
#
# from the checkout, with the environment active that Python is to come from. Options of
# sbatch go before the script and win over the lines below. WORKDIR and data must lie on
# a file system that all nodes share.
#SBATCH --job-name=ctp
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --mem=0
#SBATCH --time=24:00:00
# So long before the time limit the processes (not this script) get SIGTERM, agree on a
# step and save it. Slurm may send it up to a minute earlier.
#SBATCH --signal=TERM@300
# After a node failure or a preemption Slurm may start the job again, which resumes.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ctp-%j.log
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "usage: sbatch [options of sbatch] $0 CONFIG WORKDIR [--config.x=y ...]" >&2
  exit 2
fi
config=$1 workdir=$2
shift 2
# srun does not take this over from sbatch by itself (Slurm 22.05 and newer).
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}

# Not --kill-on-bad-exit=1, which clusters may have as their default: 75 is such an exit,
# so the first process to end after a save would have the others killed, and srun, which
# returns the highest code, would say 137. --wait ends a hung rest just as well.
code=0
srun --kill-on-bad-exit=0 --wait=300 \
  "${PYTHON:-python3}" -m ctp_jax.main --config="$config" --workdir="$workdir" \
  --stopped_exit_code=75 "$@" || code=$?
# 75: stopped and saved before the end. 2, a user error, would only happen again.
((code == 75)) || exit "$code"

# A job that somebody has cancelled stays cancelled.
[[ $(scontrol show job "$SLURM_JOB_ID") == *JobState=RUNNING* ]] || exit "$code"
# Or a time limit shorter than --signal would go round for ever.
if ((${SLURM_RESTART_COUNT:-0} >= ${MAX_REQUEUES:-100})); then
  echo "not requeued: that was number ${SLURM_RESTART_COUNT}; sbatch again to go on" >&2
  exit "$code"
fi
# This ends the job, so it is the last command.
scontrol requeue "$SLURM_JOB_ID"
