# Become an SSH server over standard input and output, by asyncssh, which removes the folder with the keys when it has read
# them. Prints $READY, the user's name and that folder first.
# Values: READY is set by the caller; HOST_KEY (the server's private key), CLIENT_KEY (a line of authorized_keys),
# PYTHON (an environment's, with asyncssh), PROGRAM (text of ssh_server.py).
# shellcheck shell=sh disable=SC2154
umask 077
folder=
[ ! -x "$PYTHON" ] || folder=$(mktemp -d "${TMPDIR:-/tmp}/dls-XXXXXXXXXX" 2>/dev/null || mktemp -d "$HOME/.dls-XXXXXXXXXX" 2>/dev/null)
if [ -n "$folder" ]; then
  printf '%s\n' "$HOST_KEY" >"$folder/host_key"
  printf '%s\n' "$CLIENT_KEY" >"$folder/authorized_keys"
  (sleep 60; rm -rf "$folder") </dev/null >/dev/null 2>&1 &
  printf '%s %s %s\n' "$READY" "$(id -un 2>/dev/null || id -u)" "$folder"
  exec "$PYTHON" -I -c "$PROGRAM" "$folder"
fi
