# Print where a model goes, whether it is there, and how many bytes of each file are there. Needs paths.sh, checksums.sh,
# sizes.sh.
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
[ -d "${ROOT%/models}" ] || { mkdir -p "${ROOT%/models}" && : >"${ROOT%/models}/.by-dls"; }
mkdir -p "$PART" && make_folders "$PART" "$@" || exit 73
say_sizes "$PART" "$@"
