# Print what the host has: on each line a name, a tab and a value. Needs process.sh, paths.sh, trusted.sh, temporary.sh,
# storage.sh, sharing.sh, gpus.sh and scheduler.sh, with their values.
# Values: REMOTE_DIR (as the user wrote it), KEY (digest of it), DEPTH (0: look for servers alone; 1: stop at a running
# server; 2: stop at an environment; 3: look for everything), WITH_GPUS (1 to ask for GPUs, or empty), WITH_SCHEDULER (1 to
# look for a scheduler of jobs, and to stop where one is and no GPU, or empty).
# DLS_JOB, in the environment, is the folder of the job in which this runs; its name ends with a hyphen and the job's id.
# -O is not POSIX, but dash, bash, ksh, zsh, busybox and macOS have it.
# shellcheck shell=sh disable=SC3067
TAB=$(printf '\t')
ROOT=$(absolute "$REMOTE_DIR")
SERVER_FOUND=
ENVIRONMENT_FOUND=
# One program for three answers: what a warm connect starts, it waits for.
read -r system this_node machine <<END
$(uname -snm)
END

say system "$system"
say machine "$machine"
say hostname "$this_node"
say home "$HOME"
say uid "$USER_ID"
say root "$ROOT"
existing=$ROOT
while [ ! -d "$existing" ]; do existing=$(dirname "$existing"); done
say filesystem "$(stat -f -c %T "$existing" 2>/dev/null)"

find_temporary
if [ -n "${DLS_JOB-}" ]; then
  # Several jobs of this user may share the node: each has its servers in a directory of its own.
  say job "$DLS_JOB"
  TEMPORARY=${TEMPORARY:-/tmp/dls-$USER_ID/$KEY}/j${DLS_JOB##*-}
  set -- "$TEMPORARY"/*
else
  set -- "$ROOT/run" "$ROOT/run"/* ${SECOND:+"$SECOND"/*}
  for prefix in $PREFIXES; do set -- "$@" "$prefix/$KEY" "$prefix/$KEY"/*; done
fi
[ -z "$TEMPORARY" ] || say temporary "$TEMPORARY"
for run in "$@"; do
  # Another user could have made this directory first, to hand us a server of theirs.
  if [ ! -d "$run" ] || [ -L "$run" ] || [ ! -O "$run" ]; then continue; fi
  [ ! -f "$run/ended.json" ] || say ended "$run"
  if [ ! -O "$run/state.json" ] || [ -L "$run/state.json" ]; then continue; fi
  pid=$(read_pid "$run/state.json")
  if [ -z "$pid" ] || ! is_server "$pid" || ! runs_here "$run/state.json"; then continue; fi
  say state "$run$TAB$(tr -d '\n' <"$run/state.json")"
  SERVER_FOUND=1
done
say_others
for complete in "$ROOT"/env/*/complete.json; do
  environment=${complete%/complete.json}
  if [ ! -f "$complete" ] || [ ! -x "$environment/bin/python" ]; then continue; fi
  say environment "${environment##*/}"
  ENVIRONMENT_FOUND=1
done
for package in "$ROOT"/code/*/dls; do
  code=${package%/dls}
  [ ! -d "$package" ] || say code "${code##*/}"
done
if [ -n "$WITH_SCHEDULER" ] && [ -z "${DLS_JOB-}" ] && has_slurm; then
  say scheduler slurm
  if ! has_gpu; then exit 0; fi
  say gpu_device 1
fi
if [ "$DEPTH" -eq 0 ] || { [ "$DEPTH" -eq 1 ] && [ -n "$SERVER_FOUND" ]; }; then exit 0; fi

if [ -n "$WITH_GPUS" ]; then say_gpus; fi
if [ "$DEPTH" -lt 3 ] && [ -n "$ENVIRONMENT_FOUND" ]; then exit 0; fi

say full 1
say libc "$(getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 1)"
FREE=$(find_free "$existing")
say free "$FREE"
# A directory of somebody else is refused for that.
if [ -z "$(find_fault "$ROOT")" ]; then
  fault=$(find_storage_fault "$existing")
  case $ROOT in "$HOME"/*) [ -d "$HOME" ] || fault=${fault:+missing} ;; esac
  has_space "$FREE" || fault=${fault:-full}
  if [ -n "$fault" ]; then
    say storage "$fault"
    list_places | while IFS= read -r place; do say place "$place"; done
  fi
fi
report_python() {
  [ -x "$1" ] && "$1" -c '
import os, sys
try:
    from importlib.util import find_spec as spec
    row = [sys.executable, os.path.realpath(sys.executable), "%d.%d.%d" % sys.version_info[:3]]
    row += [str(int(bool(spec("venv") and spec("ensurepip")))), str(int(bool(spec("pip"))))]
    print("python\t" + "\t".join(row))
except Exception:
    pass
' 2>/dev/null </dev/null
}
for name in python3 python3.12 python3.13 python3.11 python3.10 python3.14 python; do
  python=$(command -v "$name" 2>/dev/null) && report_python "$python"
done
for folder in /usr/bin /usr/local/bin /opt/homebrew/bin "$HOME/miniconda3/bin" "$HOME/miniforge3/bin" \
  "$HOME/anaconda3/bin" /opt/conda/bin; do
  report_python "$folder/python3"
done
for uv in "$(command -v uv 2>/dev/null)" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" "$ROOT/uv/bin/uv"; do
  if [ -n "$uv" ] && [ -x "$uv" ]; then
    say uv "$uv"
    break
  fi
done
:
