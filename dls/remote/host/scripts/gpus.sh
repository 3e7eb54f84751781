# Library: ask nvidia-smi, which takes up to a second, and waits without end where its driver hangs.
# Values: QUERY and OLD_QUERY (command lines of nvidia-smi; old drivers refuse the first), GPU_SECONDS (how long each
# may take).
# shellcheck shell=sh disable=SC2329

say() { printf '%s\t%s\n' "$1" "$2"; }

# ask COMMAND...: print what the command prints, then `ended` and its status, or `hangs` when it takes too long.
# Nothing waits for the command here: a process that waits for its driver can't even be killed, and holds its end of the
# pipe. Whoever reads stops at the last line.
ask() {
  (
    "$@" &
    asked=$!
    (
      sleep "$GPU_SECONDS"
      printf '\nhangs\n'
      kill -KILL "$asked"
    ) &
    watch=$!
    wait "$asked"
    printf '\nended %s\n' "$?"
    kill "$watch"
  ) </dev/null 2>/dev/null &
}

# read_answer: copy lines up to the one that says how the command ended; an endless answer is cut off.
read_answer() {
  count=0
  while [ "$count" -lt 100 ] && IFS= read -r line; do
    [ "${#line}" -gt 300 ] || printf '%s\n' "$line"
    case $line in hangs | 'ended '*) break ;; esac
    count=$((count + 1))
  done
}

# say_gpus: print a line `gpu` for each GPU; `hangs` where nvidia-smi does not answer.
say_gpus() {
  say gpus 1
  command -v nvidia-smi >/dev/null 2>&1 || return 0
  for words in "$QUERY" "$OLD_QUERY"; do
    # A command and its arguments need no quotes.
    # shellcheck disable=SC2086
    answer=$(ask $words | read_answer)
    case $answer in
      *hangs) say hangs 1 ;;
      *'ended '[1-9]*) continue ;;
      *) printf '%s\n' "$answer" | while IFS= read -r gpu; do case $gpu in *,*) say gpu "$gpu" ;; esac done ;;
    esac
    break
  done
}
