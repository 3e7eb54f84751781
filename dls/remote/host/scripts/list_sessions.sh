# Print a line for each stored session: its id, KiB on disk, seconds since its last use and its manifest, between tabs.
# The last line has the name "." and the KiB of all sessions together: an image that several have counts once there.
# Arguments: the folders with sessions; the first one has the manifests.
# Values: MANIFEST, the manifest's file name.
# -O is not POSIX, but dash, bash, ksh, zsh, busybox and macOS have it.
# shellcheck shell=sh disable=SC3067
now=$(date +%s)
cd "$1" 2>/dev/null || exit 0
for session in *; do
  if [ ! -d "$session" ] || [ ! -O "$session" ]; then continue; fi
  size=0
  last=0
  for folder in "$@"; do
    [ -d "$folder/$session" ] || continue
    part=$(du -sk "$folder/$session" | awk '{ print $1 }')
    size=$((size + part))
    for file in "$folder/$session"/*; do
      case $file in */image-*) continue ;; esac  # other sessions may have the same file
      changed=$(stat -c %Y "$file" 2>/dev/null || stat -f %m "$file" 2>/dev/null || echo 0)
      [ "$changed" -le "$last" ] || last=$changed
    done
  done
  printf '%s\t%s\t%s\t%s\n' "$session" "$size" "$((now - last))" "$(head -n 1 "$session/$MANIFEST" 2>/dev/null)"
done
printf '.\t%s\t0\t\n' "$(du -sk "$@" 2>/dev/null | awk '{ size += $1 } END { print size + 0 }')"
