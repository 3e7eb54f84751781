# Listen on a Unix socket in a new directory for one connection or some seconds, in the background, and print its path.
# Values: PYTHON, LIMIT (seconds).
# shellcheck shell=sh
umask 077
folder=$(mktemp -d "${TMPDIR:-/tmp}/dls-XXXXXXXXXX") || exit 0
("$PYTHON" -c '
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
listener.settimeout(float(sys.argv[2]))
listener.accept()
' "$folder/socket" "$LIMIT"
rm -rf "$folder") </dev/null >/dev/null 2>&1 &
tries=0
while [ ! -S "$folder/socket" ] && [ "$tries" -lt 100 ]; do
  sleep 0.05 2>/dev/null || sleep 1
  tries=$((tries + 1))
done
[ ! -S "$folder/socket" ] || printf '%s\n' "$folder/socket"
