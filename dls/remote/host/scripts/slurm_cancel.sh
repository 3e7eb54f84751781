# Cancel jobs; print the ids of those that were there. Needs slurm.sh.
# Arguments: their ids. Values: SECONDS_TO_END (how long to wait for their end; 0 not to wait).
# Status: 69 there is no Slurm, 75 a job has not ended in time.
# shellcheck shell=sh
set -u
use_slurm
for id in "$@"; do
  [ -n "$(squeue -h -j "$id" -o %T 2>/dev/null)" ] || continue
  scancel "$id" && printf 'cancelled\t%s\n' "$id"
done
[ "$SECONDS_TO_END" -gt 0 ] || exit 0
deadline=$(($(date +%s) + SECONDS_TO_END))
for id in "$@"; do
  while [ -n "$(squeue -h -j "$id" -t PD,CF,R,S,ST,CG -o %i 2>/dev/null)" ]; do
    [ "$(date +%s)" -lt "$deadline" ] || exit 75
    sleep 0.1 2>/dev/null || sleep 1
  done
done
:
