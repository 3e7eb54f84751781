# Kill a server that does not respond. Needs process.sh.
# Values: PID.
# shellcheck shell=sh
is_server "$PID" && kill -KILL "$PID"
sleep 0.2
