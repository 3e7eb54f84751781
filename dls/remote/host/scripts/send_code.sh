# Unpack our code beside its place, and move it there when it is complete. Needs trusted.sh.
# Values: ROOT, ENVIRONMENT, CODE (its directory), PYTHON, ARCHIVE (a zip file in base64), REPLACES (1 where CODE holds
# files that have changed, else empty).
# The archive comes in this script, since a transfer of its own (SFTP) would cost several round trips.
# Status: 77 a directory is another user's or open to others.
# shellcheck shell=sh
set -eu
umask 077
make_directories "$ROOT" "$ROOT/code"
check_directories "$ROOT/env" "$ENVIRONMENT" "$ENVIRONMENT/bin"
check_files "$PYTHON" "$ENVIRONMENT/pyvenv.cfg"
part=$CODE.making-$(uname -n)-$$
trap 'rm -rf "$part" "$part.zip" "$part.changed"' EXIT
# A here-document, not an argument: where printf is no builtin, the length of arguments is limited.
base64 -d >"$part.zip" <<END
$ARCHIVE
END
"$PYTHON" -I -S -m zipfile -e "$part.zip" "$part"
[ -z "$REPLACES" ] || mv "$CODE" "$part.changed"
[ -d "$CODE/dls" ] || mv "$part" "$CODE"
