# Library: end a server. Needs process.sh.
# Values: ENDED, the text of ended.json; STOP_SECONDS, how long the server may take.
# shellcheck shell=sh disable=SC2329

# end_server PID RUN: let the server finish its requests and end, and kill it when it takes too long.
# ended.json says that it was ended on purpose: a connected client then starts another one only at the next request.
end_server() {
  if is_server "$1"; then
    printf '%s\n' "$ENDED" 2>/dev/null >"$2/ended.json"
    kill -TERM "$1"
    kill -CONT "$1"
    deadline=$(($(date +%s) + STOP_SECONDS))
    while is_server "$1" && [ "$(date +%s)" -lt "$deadline" ]; do
      sleep 0.05 2>/dev/null || sleep 1
    done
    is_server "$1" && kill -KILL "$1" && sleep 0.2
  fi
  [ "$(read_pid "$2/state.json")" != "$1" ] || rm -f "$2/state.json" "$2/server.sock"
  ! is_server "$1"
}
