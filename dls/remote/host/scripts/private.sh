# Library: directories that no other user can open.
# -O is not POSIX, but dash, bash, ksh, zsh, busybox and macOS have it.
# shellcheck shell=sh disable=SC2329,SC3067

# make_private PATH: make the directory private, or end with status 71 when another user holds it, 72 when none can be
# made. Below /tmp/dls-UID every directory above it is made private too: another user could have made the first one.
make_private() {
  case $1 in
    /tmp/dls-*/* | /var/tmp/dls-run-*/* | /dev/shm/dls-run-*/*) make_private "${1%/*}" ;;
  esac
  # shellcheck disable=SC2174 # the directories above are private already, or were named by the user
  mkdir -p -m 700 "$1" 2>/dev/null || true
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then
    echo "$1 can't be made"
    exit 72
  fi
  if [ ! -d "$1" ] || [ -L "$1" ] || [ ! -O "$1" ]; then
    echo "$1 belongs to somebody else"
    exit 71
  fi
  chmod 700 "$1"
}

# choose_tmpdir PATH: let programs put their temporary files into the directory where they can't put them into /tmp.
choose_tmpdir() {
  tried=${TMPDIR:-/tmp}/.dls-$(id -u)-$$
  if mkdir -m 700 "$tried" 2>/dev/null; then rmdir "$tried"; else export TMPDIR="$1"; fi
}
