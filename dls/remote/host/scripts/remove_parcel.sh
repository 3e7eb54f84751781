# Remove the folder of a parcel that has been installed. Needs trusted.sh.
# Values: ROOT, FOLDER (the parcel's, in ROOT/parcels).
# Status: 77 a directory is another user's or open to others.
# shellcheck shell=sh
check_directories "$ROOT" "$ROOT/parcels" "$FOLDER"
rm -rf "$FOLDER"
rmdir "$ROOT/parcels" 2>/dev/null
:
