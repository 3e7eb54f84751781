# Start the server detached, wait for its state file and print it.
# Needs lock.sh, private.sh, trusted.sh, sharing.sh, process.sh, end_server.sh.
# A server that runs already with the same options and code is not started again.
# In a job, its batch script starts the server: what this session starts would end with it.
# Values: ROOT, RUN (run directory), JOB (the job's folder, or empty), LOG, REPLACES (number of the process to end
# first, or 0), OPTIONS_KEY, CODE_KEY, LAUNCH_FILE (text of launch.json), GPU (index, or empty), ENVIRONMENT, CODE
# (directory of our code), PYTHON, VERIFIER (text of verify.py), STARTING (line that begins each server's part of the
# log), LOG_LINES, READY_TRIES (waits of 0.05 s), ENDED and STOP_SECONDS.
# Status: 70 the run directories there are another host's, 71 the run directory is another user's, 72 it can't be made,
# 73 no room, 75 the server ended, 76 it takes too long, 77 a directory is another user's or open to others, 78 our code
# has changed, 79 the environment has.
# shellcheck shell=sh
set -u
umask 077

# quote TEXT: print it as one word of a script.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

# assign NAME TEXT: print an assignment.
assign() { printf '%s=%s\n' "$1" "$(quote "$2")"; }

make_directories "$ROOT" "$ROOT/log" "$ROOT/hosts"
check_directories "$ROOT/run" "$ROOT/env" "$ENVIRONMENT" "$ENVIRONMENT/bin" "$ROOT/code" "$CODE"
check_files "$PYTHON" "$ENVIRONMENT/pyvenv.cfg" "$ENVIRONMENT/complete.json" "$LOG"
make_private "$RUN"
claim "$RUN"
choose_tmpdir "$RUN"
lock "$RUN/launching"

running=$(read_pid "$RUN/state.json")
if [ -n "$running" ] && [ "$running" != "$REPLACES" ] && is_server "$running" \
  && runs_here "$RUN/state.json" && grep -q -e "$OPTIONS_KEY" "$RUN/state.json" \
  && grep -q -e "$CODE_KEY" "$RUN/state.json" && cat "$RUN/state.json"; then
  exit 0
fi

unset PYTHONHOME
"$PYTHON" -I -S -B -c "$VERIFIER" check "$ENVIRONMENT" "$CODE" "$CODE_KEY"
verified=$?
# Where the interpreter itself is missing or broken, the start below fails too and leaves the reason in the log.
case $verified in
  0 | 126 | 127) ;;
  78) exit 78 ;;
  *) exit 79 ;;
esac

# The old server ends meanwhile: the new one imports much before it needs the other's place.
if [ "$REPLACES" != 0 ]; then
  (end_server "$REPLACES" "$RUN") </dev/null >/dev/null 2>&1 9>&- &
fi
rm -f "$RUN/state.json"
printf '%s' "$LAUNCH_FILE" >"$RUN/launch.json" || exit 73
[ "$(wc -c 2>/dev/null <"$LOG" || echo 0)" -lt 5000000 ] || mv "$LOG" "$LOG.1"

cd / || exit 73
if [ -n "$GPU" ]; then export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES="$GPU"; fi
export PYTHONPATH="$CODE" PYTHONUNBUFFERED=1
set -- "$PYTHON" -m dls serve --launch-file "$RUN/launch.json"
printf '%s\n' "$STARTING" >>"$LOG"
if [ -n "$JOB" ]; then
  name=$OPTIONS_KEY-$$-$(date +%s)
  {
    assign RUN "$RUN"
    assign LOG "$LOG"
    for variable in PYTHONPATH PYTHONUNBUFFERED TMPDIR; do
      eval "value=\${$variable-}"
      [ -z "$value" ] || { assign "$variable" "$value" && echo "export $variable"; }
    done
    echo "unset PYTHONHOME"
    printf 'set --'
    for word in "$@"; do printf ' %s' "$(quote "$word")"; done
    echo
  } >"$JOB/$name.part" || exit 73
  mv "$JOB/$name.part" "$JOB/$name.start"
  kill -USR2 "$(cat "$JOB/pid")"
  started=
else
  set -- nohup "$@"
  if command -v setsid >/dev/null 2>&1; then set -- setsid "$@"; fi
  "$@" >>"$LOG" 2>&1 </dev/null 9>&- &
  started=$!
fi

# The state file may still be that of the server that is replaced, which removes it when it ends.
tries=0
while [ "$tries" -lt "$READY_TRIES" ]; do
  running=$(read_pid "$RUN/state.json")
  if [ -n "$running" ] && [ "$running" != "$REPLACES" ] && cat "$RUN/state.json"; then exit 0; fi
  [ -n "$started" ] || started=$(cat "$JOB/$name.pid" 2>/dev/null)
  if [ -n "$started" ] && ! kill -0 "$started" 2>/dev/null; then
    tail -n "$LOG_LINES" "$LOG"
    exit 75
  fi
  sleep 0.05 2>/dev/null || sleep 1
  tries=$((tries + 1))
done
[ -z "$started" ] || kill "$started" 2>/dev/null
tail -n "$LOG_LINES" "$LOG"
exit 76
