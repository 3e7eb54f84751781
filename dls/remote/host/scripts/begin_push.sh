# Print where a model goes, whether it is there, and how many bytes of each file are there. Needs paths.sh, trusted.sh,
# checksums.sh, sizes.sh.
# Arguments: the names of the model's files.
# Values: MODELS_PATH (as the user wrote it, or empty), MODEL (its folder's name), CHECKSUMS.
# shellcheck shell=sh
set -u
umask 077
if [ -n "$MODELS_PATH" ]; then
  ROOT=$(absolute "$MODELS_PATH")/models
else
  ROOT=${NNINTERACTIVE_MODEL_DIR:-$HOME/.nninteractive}/models
fi
DESTINATION=$ROOT/$MODEL
PART=$ROOT/.push-$MODEL
printf 'destination\t%s\npart\t%s\n' "$DESTINATION" "$PART"
if is_complete "$DESTINATION"; then
  printf 'complete\t1\n'
  exit 0
fi
# The folder for models goes with us where we made it, and so do those above it: a file names the first one.
first=$(first_missing "${ROOT%/models}")
[ -z "$first" ] || { mkdir -p "${ROOT%/models}" && printf '%s\n' "$first" >"${ROOT%/models}/.by-dls"; }
mkdir -p "$PART" && make_folders "$PART" "$@" || exit 73
say_sizes "$PART" "$@"
