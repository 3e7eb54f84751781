# End a server; status 0 when it has ended. Needs process.sh and end_server.sh.
# Values: PID, RUN (its run directory), ENDED and STOP_SECONDS (see end_server.sh).
# shellcheck shell=sh
umask 077
end_server "$PID" "$RUN"
