# Print the folder in which models are kept, and each complete model that would be used. Needs paths.sh.
# Values: MODELS_PATH (as the user wrote it, or empty), MODEL (the model's name or folder, or empty for any one).
# shellcheck shell=sh
set -u
if [ -n "$MODELS_PATH" ]; then
  ROOT=$(absolute "$MODELS_PATH")/models
else
  ROOT=${NNINTERACTIVE_MODEL_DIR:-$HOME/.nninteractive}/models
fi
cd || exit 0
printf 'root\t%s\n' "$ROOT"
if [ -z "$MODEL" ]; then
  set -- "$ROOT"/*
else
  case $MODEL in
    */*) set -- "$(absolute "$MODEL")" ;;
    *) set -- "$ROOT/$MODEL" "$HOME/$MODEL" ;;
  esac
fi
for folder in "$@"; do
  for checkpoint in "$folder"/fold_*/checkpoint_final.pth; do
    if [ -f "$folder/plans.json" ] && [ -f "$checkpoint" ]; then printf 'model\t%s\n' "$folder"; fi
  done
done
