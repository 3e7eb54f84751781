# Library: the server's process.
# shellcheck shell=sh disable=SC2329
# This host's name, where the script knows it already.
this_node=

# is_server PID: whether a process of that number runs and is a server of ours.
# The system gives numbers of ended processes to new ones, and a zombie still takes signals.
is_server() {
  kill -0 "$1" 2>/dev/null || return 1
  if [ -r "/proc/$1/cmdline" ]; then
    tr '\0' ' ' <"/proc/$1/cmdline"
  else
    ps -o args= -p "$1" 2>/dev/null
  fi | grep -q -e '--launch-file'
}

# read_pid FILE: print the process number in a state file.
read_pid() { sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p' "$1" 2>/dev/null | head -n 1; }

# runs_here FILE: whether a state file is of a server that was started on this host, and since the host was. Several hosts
# may share the directory, and the number of a process means nothing on another host. No program is run for it, since
# each takes its time on a warm connect; a file of a release before names neither.
runs_here() {
  line=
  this_boot=
  IFS= read -r line <"$1" || [ -n "$line" ] || return 1
  if [ -r /proc/sys/kernel/random/boot_id ]; then read -r this_boot </proc/sys/kernel/random/boot_id; fi
  case $line in
    *'"host": "'*) ;;
    *) return 0 ;;
  esac
  host=${line#*'"host": "'}
  [ "${host%%'"'*}" = "${this_node:-$(uname -n)}" ] || return 1
  case $line in
    *'"boot": "'*) ;;
    *) return 0 ;;
  esac
  boot=${line#*'"boot": "'}
  [ "${boot%%'"'*}" = "$this_boot" ]
}
