# Say whether this host reaches what an installation would use. Needs paths.sh.
# Values: WITH_PACKAGES (1 to ask for the package index, or empty), WITH_WEIGHTS (1 to ask for the model hub where no
# model is here, or empty), PYTHON and UV (paths, or empty), DEFAULT_INDEX (the built-in index of uv, for a host that has
# neither uv nor pip to say it, or empty), MODELS_PATH (folder with the models, or empty), MODEL (id, or empty), LIMIT
# (seconds), ASK (text of reach_out.py).
# Prints for `packages` and `weights` a line each: the name, a tab, `open`, `closed` or `unknown`, a tab, what was asked.
# `weights` is `there` where a model is. A line `installer` says `pip` where only pip reaches its index.
# shellcheck shell=sh

# has_model FOLDER: whether a model is there that the server would take.
has_model() {
  if [ -n "$MODEL" ]; then set -- "$1/models/$MODEL"; else set -- "$1/models"/*; fi
  for model in "$@"; do
    for checkpoint in "$model"/fold_*/checkpoint_final.pth; do
      if [ -f "$checkpoint" ]; then return 0; fi
    done
  done
  return 1
}

# find_index: print the index that uv would use, for a host whose Python can't say it.
find_index() {
  found=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-}}
  if [ -z "$found" ] && [ -n "$UV" ]; then
    found=$("$UV" pip install --help 2>/dev/null | tr -s ' \n' '  ' \
      | sed -n 's/.*[( ]by default: <*\(https*:[^ >)]*\).*/\1/p')
  fi
  printf '%s\n' "${found:-$DEFAULT_INDEX}"
}

# try URL: print whether it is reached, by the first program that can tell.
try() {
  case $1 in http://* | https://*) ;; *)
    echo unknown
    return
    ;;
  esac
  if command -v curl >/dev/null 2>&1; then
    connected=$(curl -s -o /dev/null -w '%{time_connect}' --connect-timeout "$LIMIT" --max-time "$LIMIT" "$1")
    # Its exit statuses: 5 and 6 no name, 7 no connection, 28 no time left, 60 an unknown certificate, 97 a proxy's no.
    # What is not known to be closed may be open.
    case "$? $connected" in
      '0 '* | '60 '*) echo open ;;
      '5 '* | '6 '* | '7 '* | '97 '* | '28 0'[.,]000*) echo closed ;;
      *) echo unknown ;;
    esac
  else
    try_connection "$1"
  fi
}

# try_connection URL: print whether its host takes a connection; a host with a proxy is not asked without it.
try_connection() {
  if [ -n "${https_proxy:-}${HTTPS_PROXY:-}${all_proxy:-}${ALL_PROXY:-}" ]; then
    echo unknown
    return
  fi
  rest=${1#*://}
  rest=${rest%%/*}
  rest=${rest##*@}
  case $rest in *:*) port=${rest##*:} ;; *) case $1 in https:*) port=443 ;; *) port=80 ;; esac ;; esac
  host=${rest%%:*}
  # shellcheck disable=SC2016
  if command -v bash >/dev/null 2>&1; then
    set -- bash -c ': 3<>"/dev/tcp/$0/$1"' "$host" "$port"
  elif nc -h 2>&1 | grep -q -e '-z'; then # else it could wait for what the other side says
    set -- nc -z -w "$LIMIT" "$host" "$port"
  else
    echo unknown
    return
  fi
  "$@" </dev/null >/dev/null 2>&1 &
  asked=$!
  (sleep "$LIMIT" && kill -9 "$asked") >/dev/null 2>&1 &
  clock=$!
  if wait "$asked" 2>/dev/null; then echo open; else echo closed; fi
  kill "$clock" 2>/dev/null
}

HUB=
if [ -n "$WITH_WEIGHTS" ]; then
  if has_model "$(absolute "${MODELS_PATH:-${NNINTERACTIVE_MODEL_DIR:-.nninteractive}}")"; then
    printf 'weights\tthere\t\n'
  else
    HUB=${HF_ENDPOINT:-https://huggingface.co}
  fi
fi
if [ -z "$WITH_PACKAGES$HUB" ]; then exit 0; fi
if [ -n "$PYTHON" ]; then
  "$PYTHON" -c "$ASK" "$WITH_PACKAGES" "$UV" "$DEFAULT_INDEX" "$HUB" 2>/dev/null
  exit 0
fi
if [ -n "$HUB" ]; then printf 'weights\t%s\t%s\n' "$(try "$HUB")" "$HUB" & fi
if [ -n "$WITH_PACKAGES" ]; then
  index=$(find_index)
  verdict=$(try "$index")
  # Another index, and files of the host's own, may have what is needed.
  if [ "$verdict" = closed ] && [ -n "${UV_INDEX:-}${UV_EXTRA_INDEX_URL:-}${UV_FIND_LINKS:-}" ]; then verdict=unknown; fi
  printf 'packages\t%s\t%s\n' "$verdict" "$index"
fi
wait
