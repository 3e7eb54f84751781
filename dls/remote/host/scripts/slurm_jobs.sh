# Library: this user's jobs that are ours. Needs slurm.sh.
# Values: ROOT (the remote directory), NAME (the jobs' name).
# shellcheck shell=sh disable=SC2329

# say_line ID FIELDS: print the place of a job that waits among those that wait for the same partition, and their number.
# A cluster may hide other users' jobs; the place is unknown then.
say_line() {
  squeue -h -t PD -S -p,i -o %i -p "$(printf '%s' "$2" | cut -d '|' -f 6)" 2>/dev/null \
    | awk -v id="$1" '$1 == id { place = NR } END { if (place && NR > 1) printf "line\t%s\t%d %d\n", id, place, NR }'
}

# list_jobs: set JOBS to the ids of this user's jobs that have a folder of ours, FOLDERS to what precedes the id in the
# folders' paths, and print a line `job` for each.
list_jobs() {
  JOBS=
  name_cluster
  FOLDERS=$ROOT/jobs/$CLUSTER-
  lines=$(squeue -h -u "$(id -u)" -n "$NAME" -t PD,CF,R,S,ST -o '%i|%T|%r|%S|%L|%N|%P|%k') || exit 70
  while IFS='|' read -r id rest; do
    if [ -z "$id" ] || [ ! -d "$FOLDERS$id" ]; then continue; fi
    JOBS="$JOBS $id"
    printf 'job\t%s|%s\n' "$id" "$rest"
    case $rest in PENDING'|'*) say_line "$id" "$rest" ;; esac
  done <<END
$lines
END
}
