# Print this user's jobs that are ours, how they are entered, and what limits a new one. Needs slurm.sh,
# slurm_jobs.sh and trusted.sh.
# Values: ROOT, NAME (the jobs' name), CLIENT_KEY (a line for each job's authorized_keys), LAST (id of a job whose end is
# asked for, or empty), WITH_LIMITS (1 to print what the partitions allow where there is no job, or empty).
# Status: 69 there is no Slurm, 70 it does not answer, 77 a directory is another user's or open to others.
# shellcheck shell=sh
set -u
umask 077
use_slurm
check_directories "$ROOT" "$ROOT/jobs"
printf 'now\t%s\n' "$(date +%Y-%m-%dT%H:%M:%S)"
list_jobs
for id in $JOBS; do
  if [ -n "$CLIENT_KEY" ] && ! grep -q -x -F -e "$CLIENT_KEY" "$FOLDERS$id/authorized_keys" 2>/dev/null; then
    printf '%s\n' "$CLIENT_KEY" >>"$FOLDERS$id/authorized_keys"
  fi
  for name in entrance failed; do
    [ ! -f "$FOLDERS$id/$name" ] || printf '%s\t%s\t%s\n' "$name" "$id" "$(head -n 1 "$FOLDERS$id/$name")"
  done
done
if [ -n "$LAST" ]; then
  printf 'last\t%s\n' "$(scontrol -o show job "$LAST" 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p')"
  [ ! -f "$FOLDERS$LAST/failed" ] || printf 'failed\t%s\t%s\n' "$LAST" "$(head -n 1 "$FOLDERS$LAST/failed")"
fi
if [ -n "$WITH_LIMITS" ] && [ -z "$JOBS" ]; then
  sinfo -h -e -o '%P|%a|%l|%D|%c|%m|%G|%f' | while IFS= read -r line; do printf 'partition\t%s\n' "$line"; done
fi
:
