# Submit a job, unless one of ours waits or runs already, and print its id. Needs slurm.sh, slurm_jobs.sh,
# trusted.sh and lock.sh.
# Arguments: those of sbatch. Values: ROOT, NAME (the job's name), CLIENT_KEY, SCRIPT (the batch script).
# Status: 69 there is no Slurm, 70 it does not answer, 74 it refuses the job and says why, 77 as in trusted.sh.
# shellcheck shell=sh
set -u
umask 077
use_slurm
make_directories "$ROOT" "$ROOT/jobs" "$ROOT/log"
lock "$ROOT/jobs/submitting"
list_jobs
[ -z "$JOBS" ] || exit 0
# Folders of jobs that were killed.
for folder in "$ROOT"/jobs/*/; do [ ! -d "$folder" ] || rm -rf "$folder"; done
id=$(printf '%s' "$SCRIPT" | sbatch --parsable "$@" 2>&1) || {
  printf 'refused\t%s\n' "$(printf '%s' "$id" | tr '\n' ' ')"
  exit 74
}
id=$(printf '%s\n' "$id" | sed -n '$s/;.*//;$p')
mkdir -p "$ROOT/jobs/$id"
printf '%s\n' "$CLIENT_KEY" >>"$ROOT/jobs/$id/authorized_keys"
printf 'submitted\t%s\n' "$id"
