# Print the end of the server's log; status 66 when there is none.
# Values: LOG (its path), COUNT (lines), FOLLOW (1 to print what is added too, else empty).
# shellcheck shell=sh
[ -f "$LOG" ] || exit 66
exec tail -n "$COUNT" ${FOLLOW:+"-f"} "$LOG"
