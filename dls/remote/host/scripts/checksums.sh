# Library: the checksums of a model's files.
# Values: CHECKSUMS, lines as sha256sum reads them.
# shellcheck shell=sh disable=SC2329

# is_complete FOLDER: whether the folder has all files, unchanged.
is_complete() {
  (
    cd "$1" 2>/dev/null || exit 1
    printf '%s\n' "$CHECKSUMS" | { sha256sum -c - 2>/dev/null || shasum -a 256 -c - 2>/dev/null; } >/dev/null
  )
}
