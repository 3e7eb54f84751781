# Become an SSH server over standard input and output, for one connection with the keys that are given. Prints $READY, the
# user's name and the folder with the keys first; prints nothing, and ends, where this host has no sshd that its user can run.
# Values: READY is set by the caller; HOST_KEY (the server's private key), CLIENT_KEY (a line of authorized_keys).
# shellcheck shell=sh disable=SC2154
umask 077
sshd=$(PATH="$PATH:/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin:/run/current-system/sw/bin" command -v sshd)
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
  # "AllowTcpForwarding no" would forbid Unix sockets too. StrictModes looks at folders that are not the user's.
  cat >"$folder/base" <<END
HostKey "$folder/host_key"
AuthorizedKeysFile "$folder/authorized_keys"
StrictModes no
UsePAM no
PasswordAuthentication no
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
PidFile none
PrintMotd no
PrintLastLog no
LogLevel FATAL
Subsystem sftp internal-sftp
END
  # sshd gives its commands an environment of its own; that of a container or a job has what they need.
  set --
  for name in PATH LD_LIBRARY_PATH DLS_JOB SLURM_JOB_ID SLURM_CONF CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES \
    ROCR_VISIBLE_DEVICES XDG_RUNTIME_DIR TMPDIR SCRATCH http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    eval "value=\${$name-}"
    case $value in '' | *[!A-Za-z0-9_./:@%+=,~-]*) ;; *) set -- "$@" "$name=$value" ;; esac
  done
  {
    cat "$folder/base"
    [ $# -eq 0 ] || printf 'SetEnv %s\n' "$*"
  } >"$folder/sshd_config"
  # As root, sshd wants this folder, which a container has not.
  [ "$(id -u)" != 0 ] || [ -d /run/sshd ] || { mkdir /run/sshd && chmod 755 /run/sshd; } 2>/dev/null
  # A release before 7.8 knows no SetEnv.
  "$sshd" -t -f "$folder/sshd_config" 2>/dev/null || cp "$folder/base" "$folder/sshd_config"
  if "$sshd" -t -f "$folder/sshd_config"; then
    # The files are read when the connection begins; the client removes them then, and this does where it can't.
    (sleep 60; rm -rf "$folder") </dev/null >/dev/null 2>&1 &
    printf '%s %s %s\n' "$READY" "$user" "$folder"
    exec "$sshd" -i -e -f "$folder/sshd_config"
  fi
  rm -rf "$folder"
fi
