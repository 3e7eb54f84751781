# Library: an SSH server that its user runs.
# shellcheck shell=sh disable=SC2154,SC2329

# find_sshd: print the path of sshd; nothing where there is none.
find_sshd() { PATH="$PATH:/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin:/run/current-system/sw/bin" command -v sshd; }

# write_sshd_config SSHD FOLDER LEVEL: write FOLDER/sshd_config for the keys FOLDER/host_key and FOLDER/authorized_keys, and
# FOLDER/base without the environment; false, with the reason in FOLDER/sshd.log, where that sshd does not take it.
write_sshd_config() {
  # "AllowTcpForwarding no" would forbid Unix sockets too. StrictModes looks at folders that are not the user's.
  cat >"$2/base" <<END
HostKey "$2/host_key"
AuthorizedKeysFile "$2/authorized_keys"
AuthenticationMethods publickey
StrictModes no
UsePAM no
PasswordAuthentication no
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
MaxSessions 100
PidFile none
PrintMotd no
PrintLastLog no
LogLevel $3
Subsystem sftp internal-sftp
END
  if [ "$(id -u)" = 0 ]; then
    # Run by any other user than root, sshd lets in nobody but that user.
    echo "AllowUsers $(id -un)" >>"$2/base"
    # As root, sshd wants this folder, which a container has not.
    [ -d /run/sshd ] || { mkdir /run/sshd && chmod 755 /run/sshd; } 2>/dev/null
  fi
  {
    cat "$2/base"
    print_environment
  } >"$2/sshd_config"
  # A release before 7.8 knows no SetEnv.
  "$1" -t -f "$2/sshd_config" 2>"$2/sshd.log"
}

# print_environment: print a line SetEnv: sshd gives its commands an environment of its own, and that of a container or a job
# has what they need.
print_environment() {
  set --
  for name in DLS_JOB PATH LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES \
    ROCR_VISIBLE_DEVICES XDG_RUNTIME_DIR TMPDIR SCRATCH http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SLURM_JOB_ID SLURM_CONF; do
    eval "value=\${$name-}"
    [ -n "$value" ] || continue
    case $name:$value in
      # Named by the user, who may have put a space into it.
      DLS_JOB:*'"'*) ;;
      DLS_JOB:*) set -- "$@" "$name=$value" ;;
      *[!A-Za-z0-9_./:@%+=,~-]*) ;;
      *) set -- "$@" "$name=$value" ;;
    esac
  done
  [ $# -gt 0 ] || return 0
  printf 'SetEnv'
  printf ' "%s"' "$@"
  echo
}
