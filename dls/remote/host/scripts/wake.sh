# Let a suspended server continue. Needs process.sh.
# Values: PID.
# shellcheck shell=sh
is_server "$PID" && kill -CONT "$PID"
