# Remove the folders of sessions.
# Arguments: the folders.
# shellcheck shell=sh
rm -rf -- "$@"
