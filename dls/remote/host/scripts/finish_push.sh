# Check every file of a model and move its folder to its place. Needs checksums.sh.
# Values: DESTINATION, PART (the folder with the files), CHECKSUMS.
# Status: 65 the files are not those that were sent, 73 the folder can't be moved.
# shellcheck shell=sh
set -u
if ! is_complete "$PART"; then
  # Another client that sent the same model may have moved it to its place.
  ! is_complete "$DESTINATION" || exit 0
  rm -rf "$PART"
  exit 65
fi
rm -rf "$DESTINATION" && mv "$PART" "$DESTINATION" || exit 73
: >"${DESTINATION%/*}/.${DESTINATION##*/}.by-dls"  # so that it can be removed with all that is ours
