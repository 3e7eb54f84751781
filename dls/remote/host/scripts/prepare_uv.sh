# Make the directory for uv. Needs trusted.sh.
# Values: ROOT.
# Status: 73 no room, 77 a directory is another user's or open to others.
# shellcheck shell=sh
umask 077
make_directories "$ROOT" "$ROOT/uv" "$ROOT/uv/bin"
check_files "$ROOT/uv/bin/uv"
