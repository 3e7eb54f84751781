# Submit a job, unless another one of ours than BESIDES waits or runs already, and print its id. Needs slurm.sh,
# slurm_jobs.sh, trusted.sh and lock.sh.
# Arguments: those of sbatch. Values: ROOT, NAME (the job's name), CLIENT_KEY, SCRIPT (the batch script), BESIDES (id of the
# job whose successor this one is, or empty).
# Status: 69 there is no Slurm, 70 it does not answer, 74 it refuses the job and says why, 77 as in trusted.sh.
# shellcheck shell=sh
set -u
umask 077
use_slurm
make_directories "$ROOT" "$ROOT/jobs" "$ROOT/log"
lock "$ROOT/jobs/submitting"
list_jobs
for id in $JOBS; do [ "$id" = "$BESIDES" ] || exit 0; done
# Folders of jobs that were killed. Those of another cluster that shares the home are its own.
for folder in "$FOLDERS"*; do
  id=${folder#"$FOLDERS"}
  case $id in "$BESIDES" | *[!0-9]*) ;; *) rm -rf "$folder" ;; esac
done
# Slurm writes one for each job.
find "$ROOT/log" -name 'job-*.log' -mtime +7 -exec rm -f {} + 2>/dev/null
id=$(printf '%s' "$SCRIPT" | sbatch --parsable "$@" 2>&1) || {
  printf 'refused\t%s\n' "$(printf '%s' "$id" | tr '\n' ' ')"
  exit 74
}
id=$(printf '%s\n' "$id" | sed -n '$s/;.*//;$p')
mkdir -p "$FOLDERS$id"
printf '%s\n' "$CLIENT_KEY" >>"$FOLDERS$id/authorized_keys"
printf 'submitted\t%s\n' "$id"
