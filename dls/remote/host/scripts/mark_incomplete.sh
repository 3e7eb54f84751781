# Mark a damaged installation as incomplete. Needs trusted.sh.
# Values: ROOT, ENVIRONMENT and CODE (their directories).
# Status: 77 a directory is another user's or open to others.
# shellcheck shell=sh
check_directories "$ROOT" "$ROOT/env" "$ROOT/code"
rm -f "$ENVIRONMENT/complete.json"
rm -rf "$CODE"
