# Become an SSH server over standard input and output, by asyncssh. Prints $READY and the user's name first.
# Values: READY is set by the caller; HOST_KEY (the server's private key), CLIENT_KEY (a line of authorized_keys),
# PYTHON (an environment's, with asyncssh), PROGRAM (text of ssh_server.py).
# shellcheck shell=sh disable=SC2154
umask 077
folder=$(mktemp -d "${TMPDIR:-/tmp}/dls-XXXXXXXXXX" 2>/dev/null || mktemp -d "$HOME/.dls-XXXXXXXXXX" 2>/dev/null)
if [ -n "$folder" ] && [ -x "$PYTHON" ]; then
  printf '%s\n' "$HOST_KEY" >"$folder/host_key"
  printf '%s\n' "$CLIENT_KEY" >"$folder/authorized_keys"
  printf '%s %s\n' "$READY" "$(id -un 2>/dev/null || id -u)"
  exec "$PYTHON" -I -c "$PROGRAM" "$folder"
fi
