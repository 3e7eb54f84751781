# Print the path of the server's log that was written last; several hosts may share the folder.
# Values: FOLDER.
# shellcheck shell=sh disable=SC2012
ls -t "$FOLDER"/server-*.log 2>/dev/null | head -n 1
