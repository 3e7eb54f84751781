# Print what is ours on the host, or remove it. Needs paths.sh, trusted.sh and temporary.sh.
# Each line of the list is a kind, its size in KiB and its path, between tabs.
# Arguments: the folders with sessions, whole folders of ours. Values: ROOT (the remote directory), KEY (digest of it as
# the user wrote it), HOME_DIR (the default remote directory), MODELS_PATH (as the user wrote it, or empty), WITH_MODELS
# (1 to remove models that dls has put there too; empty to list them as kept), ACTION (list or remove).
# What is in ROOT and has none of our names stays, and so does ROOT then; so do models that somebody else has put there.
# -O is not POSIX, but dash, bash, ksh, zsh, busybox and macOS have it.
# shellcheck shell=sh disable=SC3067,SC2153
set -u
umask 077
LEFT=

# act KIND PATH: list the path, or remove it; only what is this user's own, and no link but in ROOT.
act() {
  if [ ! -e "$2" ] || [ -L "$2" ] || [ ! -O "$2" ]; then return 0; fi
  if [ "$ACTION" = list ]; then
    printf '%s\t%s\t%s\n' "$1" "$(du -sk "$2" 2>/dev/null | awk '{ print $1 }')" "$2"
  else
    chmod -R u+rwX "$2" 2>/dev/null
    rm -rf "$2" || LEFT=1
  fi
}

# drop FOLDER: remove a folder of ours that is empty now, and links nowhere.
drop() {
  [ "$ACTION" = remove ] || return 0
  [ "$(ls -A "$1" 2>/dev/null)" != .usable ] || rm -f "$1/.usable"
  rmdir "$1" 2>/dev/null || true
}

# climb FOLDER MADE: remove a folder of ours that is empty now, and those above it up to the one that was made first.
# Where that is not known, or is elsewhere since the folder was moved, none above it goes.
climb() {
  folder=$1
  case ${2:-none}/ in /*) ;; *) set -- "$1" "$1" ;; esac
  case $folder in "$2"/*) ;; *) set -- "$1" "$1" ;; esac
  while rmdir "$folder" 2>/dev/null && [ "$folder" != "$2" ]; do folder=${folder%/*}; done
}

RECORD=$ROOT/run-$(uname -n)
SECOND=
if [ -e "$RECORD" ]; then SECOND=$(read_record); fi
[ -z "$SECOND" ] || act "run directory" "$SECOND"
for prefix in $PREFIXES; do
  if is_foreign "$prefix"; then continue; fi
  act "run directory" "$prefix/$KEY"
  drop "$prefix"
done
for folder in "$@"; do
  act "sessions" "$folder"
  parent=${folder%/*}
  if [ -O "$parent" ] && [ ! -L "$parent" ]; then drop "$parent"; fi
done
if [ -n "$WITH_MODELS" ] || [ "$ACTION" = list ]; then
  if [ -n "$MODELS_PATH" ]; then
    MODELS=$(absolute "$MODELS_PATH")
    while [ "${MODELS%/}" != "$MODELS" ]; do MODELS=${MODELS%/}; done
  else
    MODELS=${NNINTERACTIVE_MODEL_DIR:-$HOME/.nninteractive}
  fi
  for mark in "$MODELS/models"/.*.by-dls; do
    [ -f "$mark" ] || continue
    name=${mark##*/.}
    kind=model
    [ -n "$WITH_MODELS" ] || kind="kept model"
    act "$kind" "$MODELS/models/${name%.by-dls}"
    [ "$ACTION" = list ] || rm -f "$mark" "$MODELS/models/.${name%.by-dls}.lock"
  done
  for part in "$MODELS/models"/.push-*; do
    kind="part of a model"
    [ -n "$WITH_MODELS" ] || kind="kept model"
    act "$kind" "$part"
  done
  others=
  for model in "$MODELS/models"/*; do [ ! -d "$model" ] || others=1; done
  if [ "$ACTION" = remove ] && [ -z "$others" ] && [ -f "$MODELS/.by-dls" ]; then
    MADE=$(cat "$MODELS/.by-dls")
    rm -rf "$MODELS/models/.cache" "$MODELS/downloads" "$MODELS/models.json" "$MODELS/.by-dls"
    drop "$MODELS/models"
    climb "$MODELS" "$MADE"
  fi
fi
drop "$HOME_DIR/sessions"
if [ "$ROOT" != "$HOME_DIR" ]; then drop "$HOME_DIR"; fi
if [ -n "$(find_fault "$ROOT")" ]; then
  # Somebody else's, or open to others: nothing of ours was ever put there.
  exit 0
fi
act "packages" "$ROOT/env"
act "code" "$ROOT/code"
act "uv" "$ROOT/uv"
act "Python" "$ROOT/python"
act "caches" "$ROOT/cache"
act "parcels" "$ROOT/parcels"
act "jobs" "$ROOT/jobs"
drop "$ROOT/sessions"
act "run directory" "$ROOT/run"
act "list of hosts" "$ROOT/hosts"
act "log" "$ROOT/log"
if [ "$ACTION" = remove ]; then
  rm -f "$ROOT"/run-* "$ROOT/.usable"
  MADE=
  if [ -f "$ROOT/.made-by-dls" ]; then
    MADE=$(cat "$ROOT/.made-by-dls")
    rm -f "$ROOT/.made-by-dls"
  fi
  if [ -n "$MADE" ] || [ "$ROOT" = "$HOME_DIR" ]; then
    climb "$ROOT" "$MADE"
  fi
  for left in "$ROOT"/* "$ROOT"/.[!.]*; do [ ! -e "$left" ] || printf 'stays\t0\t%s\n' "$left"; done
  [ -z "$LEFT" ] || exit 73
fi
:
