# Say by the status whether a server runs in a job, or is about to: 0 for yes, 1 for no.
# Values: JOB (the job's folder).
# shellcheck shell=sh
set -u
for file in "$JOB"/*.start "$JOB"/*.taken "$JOB"/*.pid; do
  [ ! -f "$file" ] || [ -f "${file%.*}.ended" ] || exit 0
done
exit 1
