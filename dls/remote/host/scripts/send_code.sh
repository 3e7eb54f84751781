# Unpack our code beside its place, and move it there when it is complete.
# Values: ROOT, CODE (its directory), PYTHON, ARCHIVE (a zip file in base64).
# The archive comes in this script, since a transfer of its own (SFTP) would cost several round trips.
# shellcheck shell=sh
set -eu
umask 077
mkdir -p "$ROOT/code"
part=$CODE.making-$$
trap 'rm -rf "$part" "$part.zip"' EXIT
# A here-document, not an argument: where printf is no builtin, the length of arguments is limited.
base64 -d >"$part.zip" <<END
$ARCHIVE
END
"$PYTHON" -m zipfile -e "$part.zip" "$part"
[ -d "$CODE/dls" ] || mv "$part" "$CODE"
