# Library: this user's jobs that are ours.
# Values: ROOT (the remote directory), NAME (the jobs' name).
# shellcheck shell=sh disable=SC2329

# list_jobs: set JOBS to the ids of this user's jobs that have a folder of ours, and print a line `job` for each.
list_jobs() {
  JOBS=
  lines=$(squeue -h -u "$(id -u)" -n "$NAME" -t PD,CF,R,S,ST -o '%i|%T|%r|%S|%L|%N|%P|%k') || exit 70
  while IFS='|' read -r id rest; do
    if [ -z "$id" ] || [ ! -d "$ROOT/jobs/$id" ]; then continue; fi
    JOBS="$JOBS $id"
    printf 'job\t%s|%s\n' "$id" "$rest"
  done <<END
$lines
END
}
