# Check the program uv, which the client has sent, and move it to its place. Needs trusted.sh.
# Values: ROOT, PART (path of what was sent, packed by gzip, in ROOT/uv/bin), ARCHIVE (the same in base64 where the host
# takes no files, else empty), DIGEST (SHA-256 of the program).
# Status: 65 it is not the program that was sent, 73 no room, 74 it does not run here, 77 a directory is another user's or
# open to others.
# shellcheck shell=sh
set -u
umask 077
check_directories "$ROOT" "$ROOT/uv" "$ROOT/uv/bin"
check_files "$ROOT/uv/bin/uv"
trap 'rm -f "$PART" "$PART.program"' EXIT
if [ -n "$ARCHIVE" ]; then
  base64 -d >"$PART" <<END || exit 73
$ARCHIVE
END
fi
gzip -dc <"$PART" >"$PART.program" || exit 73
sum=$(sha256sum "$PART.program" 2>/dev/null || shasum -a 256 "$PART.program" 2>/dev/null)
[ "${sum%% *}" = "$DIGEST" ] || exit 65
chmod 700 "$PART.program"
"$PART.program" --version || exit 74
mv -f "$PART.program" "$ROOT/uv/bin/uv" || exit 73
