# Library: the directory on a local disk in which servers have their run directories. Needs trusted.sh.
# Values: ROOT (the remote directory), KEY (digest of it as the user wrote it).
# -O is not POSIX, but dash, bash, ksh, zsh, busybox and macOS have it.
# shellcheck shell=sh disable=SC2034,SC2329,SC3067
# This host's name, where the script knows it already.
this_node=

USER_ID=$(id -u)
PREFIXES="/tmp/dls-$USER_ID /var/tmp/dls-run-$USER_ID /dev/shm/dls-run-$USER_ID"

# is_foreign PATH: whether something is there that is no directory of this user's own.
is_foreign() { { [ -e "$1" ] || [ -L "$1" ]; } && { [ ! -d "$1" ] || [ -L "$1" ] || [ ! -O "$1" ]; }; }

# is_usable FOLDER: whether something can be made there. A test for a permission does not see every read-only disk.
is_usable() { [ -d "$1" ] && mkdir -m 700 "$1/.dls-$USER_ID-$$" 2>/dev/null && rmdir "$1/.dls-$USER_ID-$$"; }

# is_written DIRECTORY: whether it is this user's own, and something can be written there: without starting a program.
is_written() { [ -d "$1" ] && [ -O "$1" ] && [ ! -L "$1" ] && (umask 077 && : >"$1/.usable") 2>/dev/null; }

# choose_prefix: print how the names of the user's directories begin in the first place where some can be made.
choose_prefix() {
  for prefix in $PREFIXES; do
    if is_written "$prefix" || is_usable "${prefix%/*}"; then
      printf '%s\n' "$prefix"
      return
    fi
  done
}

# read_record: print the directory with a random name that the remote directory keeps for this host, unless another user
# could have written the record or holds the directory.
read_record() {
  if [ ! -O "$RECORD" ] || [ -L "$RECORD" ] || [ -n "$(find_fault "$ROOT")" ]; then return; fi
  recorded=$(head -n 1 "$RECORD")
  for prefix in $PREFIXES; do
    case ${recorded#"$prefix-"} in
      */* | "$recorded") ;;
      *) is_foreign "$recorded" || printf '%s\n' "$recorded" ;;
    esac
  done
}

# make_record PREFIX: make such a directory and record it. Of two probes at the same time, the first one's counts.
make_record() {
  umask 077
  mkdir -p "$ROOT" 2>/dev/null
  if [ ! -d "$ROOT" ] || [ -n "$(find_fault "$ROOT")" ]; then return; fi
  made=$(mktemp -d "$1-XXXXXXXXXX") || return
  [ -z "$IS_STALE" ] || rm -f "$RECORD"
  (set -C && printf '%s\n' "$made" >"$RECORD") 2>/dev/null
  [ "$(read_record)" = "$made" ] || rmdir "$made"
}

# find_temporary: set RECORD to the file with the recorded directory, SECOND to that directory, and TEMPORARY to the one
# that is used where it is not the first one in /tmp: because that is another user's, made to keep us from starting a
# server, or because /tmp is read-only.
find_temporary() {
  SECOND=
  IS_STALE=
  TEMPORARY=
  RECORD=$ROOT/run-${this_node:-$(uname -n)}
  if [ -e "$RECORD" ] || [ -L "$RECORD" ]; then
    SECOND=$(read_record)
    [ -n "$SECOND" ] || IS_STALE=1
  fi
  chosen=$(choose_prefix)
  case $chosen in
    '') TEMPORARY=$ROOT/run ;;
    "/tmp/dls-$USER_ID") ;;
    *) TEMPORARY=$chosen/$KEY ;;
  esac
  if is_foreign "$chosen"; then
    case $SECOND in
      "$chosen-"*) ;;
      *)
        [ -z "$SECOND" ] || IS_STALE=1
        make_record "$chosen"
        SECOND=$(read_record)
        ;;
    esac
    TEMPORARY=$SECOND
  fi
}
