# Make the folder of a parcel, and print how many bytes of each of its files are there. Needs trusted.sh and sizes.sh.
# Parcels that nobody has sent anything of for a week are removed.
# Arguments: the names of the files.
# Values: ROOT, FOLDER (the parcel's, in ROOT/parcels).
# Status: 73 no room, 77 a directory is another user's or open to others.
# shellcheck shell=sh
set -u
umask 077
make_directories "$ROOT" "$ROOT/parcels"
find "$ROOT/parcels" -mindepth 1 -maxdepth 1 -mtime +7 -exec rm -rf {} + 2>/dev/null
make_directories "$FOLDER"
make_folders "$FOLDER" "$@" || exit 73
touch "$FOLDER"
say_sizes "$FOLDER" "$@"
