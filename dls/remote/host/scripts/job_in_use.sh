# Say by the status whether a server runs in a job, or is about to: 0 for yes, 1 for no.
# Values: ROOT, ID (the job's; the name of its folder begins with the cluster's).
# shellcheck shell=sh
set -u
for file in "$ROOT"/jobs/*-"$ID"/*.start "$ROOT"/jobs/*-"$ID"/*.taken "$ROOT"/jobs/*-"$ID"/*.pid; do
  [ ! -f "$file" ] || [ -f "${file%.*}.ended" ] || exit 0
done
exit 1
