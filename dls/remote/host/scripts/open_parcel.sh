# Check every file of a parcel, and put the uv and the Python in it to their places. Needs trusted.sh and checksums.sh.
# Prints `uv` and its path where it runs here, and `python` and its path where the parcel has one.
# Values: ROOT, FOLDER (the parcel's), CHECKSUMS, UV_FILE (the program uv in FOLDER, packed by gzip), PYTHON_FILE (the
# archive of a Python in FOLDER, or empty), PYTHON_NAME (its directory in ROOT/python), PYTHON_VERSION.
# Status: 65 files are not those that were sent, and have been removed, 73 no room, 74 the Python does not run here,
# 77 a directory is another user's or open to others.
# shellcheck shell=sh
set -u
umask 077
check_directories "$ROOT" "$ROOT/parcels" "$FOLDER"
make_directories "$ROOT/uv" "$ROOT/uv/bin"
check_files "$ROOT/uv/bin/uv"
# Beside the parcel: on the same disk, and removed with old parcels should this script be killed.
MADE=$ROOT/parcels/.opening-$(uname -n)-$$
trap 'rm -rf "$MADE"' EXIT
mkdir "$MADE" && cd "$FOLDER" || exit 73
if ! is_complete .; then
  printf '%s\n' "$CHECKSUMS" | while IFS= read -r CHECKSUMS; do
    is_complete . || rm -f "./${CHECKSUMS#*  }"
  done
  exit 65
fi
gzip -dc <"$UV_FILE" >"$MADE/uv" && chmod 700 "$MADE/uv" || exit 73
if "$MADE/uv" --version >/dev/null 2>&1; then
  # One that is there already may be running, on another host too.
  cmp -s "$MADE/uv" "$ROOT/uv/bin/uv" 2>/dev/null || mv -f "$MADE/uv" "$ROOT/uv/bin/uv" || exit 73
  printf 'uv\t%s\n' "$ROOT/uv/bin/uv"
fi
[ -n "$PYTHON_FILE" ] || exit 0
place=$ROOT/python/$PYTHON_NAME
make_directories "$ROOT/python"
check_directories "$place"
python=$place/bin/python$PYTHON_VERSION
if ! "$python" -c '' 2>/dev/null; then
  # Neither the owners nor the modes of the archive's maker: what others can write to is not used.
  gzip -dc <"$PYTHON_FILE" | tar -C "$MADE" -xof - || exit 73
  chmod -R go-w "$MADE" || exit 73
  # Another installation may have put it there meanwhile, and use it.
  "$python" -c '' 2>/dev/null || { rm -rf "$place" && mv "$MADE/python" "$place"; } || exit 73
fi
"$python" -c '' || exit 74
printf 'python\t%s\n' "$python"
