# Library: paths as a user writes them.
# shellcheck shell=sh disable=SC2329

# absolute PATH: print the path; `~/x` and relative paths start at the home.
absolute() {
  case $1 in
    '~' | '') printf '%s\n' "$HOME" ;;
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$HOME/${1#'~/'}" ;;
  esac
}
