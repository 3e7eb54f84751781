# Library: what several hosts that share the remote directory have to know of each other. Needs trusted.sh.
# Values: ROOT (the remote directory), RECORD_MINUTES.
# -O is not POSIX, but dash, bash, ksh, zsh, busybox and macOS have it.
# shellcheck shell=sh disable=SC2329,SC3067
# This host's name, where the script knows it already.
this_node=

# read_claim: print the name of the host whose run directories are in the remote directory; nothing where none are.
read_claim() {
  if [ -O "$ROOT/run/host" ] && [ ! -L "$ROOT/run/host" ]; then head -n 1 "$ROOT/run/host"; fi
}

# claim RUN: record that run directories of this host are in the remote directory, if RUN is one there; end with status
# 70 when they are another host's.
claim() {
  case $1 in
    "$ROOT/run" | "$ROOT/run"/*) ;;
    *) return 0 ;;
  esac
  (set -C && printf '%s\n' "${this_node:-$(uname -n)}" >"$ROOT/run/host") 2>/dev/null
  claimed=$(read_claim)
  if [ -n "$claimed" ] && [ "$claimed" != "${this_node:-$(uname -n)}" ]; then exit 70; fi
}

# say_others: print a line `taken` where the run directories here are another host's, and a line `elsewhere` with the name
# of the record of each server that runs on another host.
say_others() {
  node=${this_node:-$(uname -n)}
  claimed=$(read_claim)
  if [ -n "$claimed" ] && [ "$claimed" != "$node" ]; then printf 'taken\t%s\n' "$claimed"; fi
  others=
  for record in "$ROOT"/hosts/*.*; do
    case ${record##*/} in "$node".* | '*.*') ;; *) others=1 ;; esac
  done
  if [ -z "$others" ] || [ -n "$(find_fault "$ROOT")$(find_fault "$ROOT/hosts")" ]; then return 0; fi
  # -mmin is not POSIX, but GNU, busybox, BSD and macOS have it.
  find "$ROOT/hosts" -type f -name '*.*' ! -name "$node.*" -mmin "-$RECORD_MINUTES" 2>/dev/null | head -n 100 \
    | while IFS= read -r record; do printf 'elsewhere\t%s\n' "${record##*/}"; done
}
