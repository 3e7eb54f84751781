# Library: what another user of the host can have made or can change is not used.
# A directory of ours is one that its user owns and that nobody else can write to. Status 77 ends a script that meets
# another one; the last line of its output is then `foreign` or `loose`, a tab and the path.
# shellcheck shell=sh disable=SC2329

# describe PATH: print the path's line of `ls`: its mode, links, numeric owner and more. Nothing for a missing path.
describe() { LC_ALL=C ls -ldn "$1" 2>/dev/null; }

# is_owned LINE: whether a line of `ls` names this user as the owner.
is_owned() {
  owner=${1#* }
  while [ "$owner" != "${owner# }" ]; do owner=${owner# }; done
  owner=${owner#* }
  while [ "$owner" != "${owner# }" ]; do owner=${owner# }; done
  [ "${owner%% *}" = "$(id -u)" ]
}

# find_fault PATH: print `foreign` for a path that is no directory of this user's own, `loose` for one that others can
# write to, nothing for a directory of ours or a missing path. A symbolic link counts as what it leads to where the user
# made it: many keep ~/.dls on another disk.
find_fault() {
  line=$(describe "${1%/}") || return 0
  if is_owned "$line"; then
    case $line in l*) line=$(describe "$1/." || echo "- 0 -") ;; esac
  fi
  case $line in
    d????w* | d???????w*) fault=loose ;;
    d*) fault= ;;
    *) fault=foreign ;;
  esac
  is_owned "$line" || fault=foreign
  printf '%s' "$fault"
}

# refuse FAULT PATH: end the script with what is wrong.
refuse() {
  printf '%s\t%s\n' "$1" "$2"
  exit 77
}

# check_directories PATH...: end the script where a path exists and is no directory of ours.
# An empty directory is closed to others instead: what they could have put there does not exist.
check_directories() {
  for checked in "$@"; do
    fault=$(find_fault "$checked")
    if [ "$fault" = loose ] && [ -z "$(ls -A "$checked")" ]; then
      chmod go-w "$checked" && [ -z "$(ls -A "$checked")" ] && fault=$(find_fault "$checked")
    fi
    [ -z "$fault" ] || refuse "$fault" "$checked"
  done
}

# first_missing PATH: print which directory would be made first on the way to the path; nothing where that exists.
first_missing() {
  first=
  above=$1
  while [ ! -e "$above" ]; do first=$above above=$(dirname "$above"); done
  printf '%s' "$first"
}

# make_directories PATH...: make each directory where it is missing, for its user alone, and check it.
# In the remote directory, ROOT, a file tells which directory was made first on the way to it: it goes with us.
make_directories() {
  for made in "$@"; do
    check_directories "$made"
    first=
    [ "$made" != "${ROOT-}" ] || first=$(first_missing "$made")
    mkdir -p "$made" || exit 73
    check_directories "$made"
    [ -z "$first" ] || printf '%s\n' "$first" >"$made/.made-by-dls"
  done
}

# check_files PATH...: end the script where a path exists and is not this user's own file or link.
check_files() {
  for checked in "$@"; do
    line=$(describe "$checked") || continue
    is_owned "$line" || refuse foreign "$checked"
    case $line in -????w* | -???????w*) refuse loose "$checked" ;; esac
  done
}
