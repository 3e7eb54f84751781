# Library: a lock between processes of one host, and the cleaning up at the end of the script.
# The system's lock on file descriptor 9 ends with its holder, however that ends. What a script starts and does not wait
# for must not inherit the descriptor (`9>&-`): it would hold the lock for as long as it runs.
# Sets LINK, the symbolic link that holds the lock where the host has neither flock nor perl; removes it and the directory
# TEMP when the script ends.
# shellcheck shell=sh disable=SC2329
LINK=
TEMP=

# lock PATH: wait until this process holds the lock. PATH is a file that stays; its last line is its holder's number.
lock() {
  if command -v flock >/dev/null 2>&1; then
    lock_file "$1" lock_by_flock
  elif command -v perl >/dev/null 2>&1; then
    lock_file "$1" lock_by_perl
  else
    lock_by_link "$1.link"
  fi
}

lock_by_flock() { flock ${1:+"$1"} 9; }

# macOS has no flock, but the perl that comes with it calls the same function of the system (2 exclusive, 4 don't wait).
lock_by_perl() { perl -e 'open(F, ">>&=9") && flock(F, @ARGV ? 6 : 2) || exit 1' -- ${1:+"$1"}; }

# lock_file PATH COMMAND: lock the open file by the command; `-n` asks it not to wait.
lock_file() {
  exec 9>>"$1"
  if ! "$2" -n; then
    announce "$(tail -n 1 "$1" 2>/dev/null)"
    "$2" '' || lock_by_link "$1.link"
  fi
  echo $$ >&9
}

# lock_by_link PATH: the lock is the first link of PATH, PATH.1, PATH.2 ... whose process lives.
# Making a link is exclusive, and a dead process's link is never removed, only followed by the next one: whoever removes
# one could remove that of a process which took the lock meanwhile.
lock_by_link() {
  link=$1
  number=0
  announced=
  until ln -s $$ "$link" 2>/dev/null; do
    holder=$(readlink "$link" 2>/dev/null) || continue
    # A link with this process's own number is that of a dead one which had the number before.
    if [ "$holder" != $$ ] && kill -0 "$holder" 2>/dev/null; then
      [ -n "$announced" ] || announce "$holder"
      announced=1
      sleep 0.1 2>/dev/null || sleep 1
    else
      number=$((number + 1))
      link=$1.$number
    fi
  done
  LINK=$link
}

announce() { echo "waiting for another dls (process ${1:-unknown}) to finish"; }

cleanup() {
  [ -z "$TEMP" ] || rm -rf "$TEMP"
  [ -z "$LINK" ] || rm -f "$LINK"
}

trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
