# Become an SSH server over standard input and output, for one connection with the keys that are given. Prints $READY, the
# user's name and the folder with the keys first; prints nothing, and ends, where this host has no sshd that its user can
# run. Needs sshd.sh.
# Values: READY is set by the caller; HOST_KEY (the server's private key), CLIENT_KEY (a line of authorized_keys).
# shellcheck shell=sh disable=SC2154
umask 077
sshd=$(find_sshd)
user=$(id -un 2>/dev/null)
# sshd runs commands with the user's login shell.
case $(getent passwd "$user" 2>/dev/null) in */nologin | */false) user= ;; esac
# Where root runs it, it lets nobody into a locked account, as that of root is in many containers.
if [ "$(id -u)" = 0 ]; then
  case $(getent shadow "$user" 2>/dev/null) in "$user:!"*) user= ;; esac
fi
folder=
if [ -n "$sshd" ] && [ -n "$user" ]; then
  folder=$(mktemp -d "${TMPDIR:-/tmp}/dls-XXXXXXXXXX" 2>/dev/null || mktemp -d "$HOME/.dls-XXXXXXXXXX" 2>/dev/null)
fi
if [ -n "$folder" ]; then
  printf '%s\n' "$HOST_KEY" >"$folder/host_key"
  printf '%s\n' "$CLIENT_KEY" >"$folder/authorized_keys"
  # Without an environment sshd does for a host of its own, and not in a job, whose programs have to know it.
  if write_sshd_config "$sshd" "$folder" FATAL \
    || { [ -z "${DLS_JOB-}" ] && cp "$folder/base" "$folder/sshd_config" && "$sshd" -t -f "$folder/sshd_config"; }; then
    # The files are read when the connection begins; the client removes them then, and this does where it can't.
    (sleep 60; rm -rf "$folder") </dev/null >/dev/null 2>&1 &
    printf '%s %s %s\n' "$READY" "$user" "$folder"
    exec "$sshd" -i -e -f "$folder/sshd_config"
  fi
  rm -rf "$folder"
fi
