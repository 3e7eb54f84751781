# Library: how many bytes of files that are being sent are there.
# shellcheck shell=sh disable=SC2329

# make_folders FOLDER FILE...: make the folders below FOLDER in which the files will lie.
make_folders() {
  into=$1
  shift
  for file in "$@"; do mkdir -p "$(dirname "$into/$file")" || return 1; done
}

# say_sizes FOLDER FILE...: print a line `size` with the name and the bytes of each file.
say_sizes() {
  into=$1
  shift
  for file in "$@"; do
    printf 'size\t%s\t%s\n' "$file" "$(wc -c 2>/dev/null <"$into/$file" || echo 0)"
  done
}
