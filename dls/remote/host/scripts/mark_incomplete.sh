# Mark a damaged installation as incomplete.
# Values: ENVIRONMENT and CODE, their directories.
# shellcheck shell=sh
rm -f "$ENVIRONMENT/complete.json"
rm -rf "$CODE"
