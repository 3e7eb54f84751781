# Library: a lock between processes of one host, and the cleaning up at the end of the script.
# Sets LOCKED, the lock that is held; removes it and the directory TEMP when the script ends.
# shellcheck shell=sh disable=SC2329
LOCKED=
TEMP=

# lock PATH: wait until this process holds the lock.
lock() {
  # Making a symbolic link is atomic. The link names its holder; the lock of a dead holder is removed.
  announced=
  while ! ln -s $$ "$1" 2>/dev/null; do
    holder=$(readlink "$1" 2>/dev/null) || holder=
    if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; then
      rm -f "$1"
      continue
    fi
    [ -n "$announced" ] || echo "waiting for another dls (process $holder) to finish"
    announced=1
    sleep 1
  done
  LOCKED=$1
}

cleanup() {
  [ -z "$TEMP" ] || rm -rf "$TEMP"
  [ -z "$LOCKED" ] || rm -f "$LOCKED"
}

trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
