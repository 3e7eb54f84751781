"""Pieces of POSIX shell that more than one of our scripts needs."""

from __future__ import annotations

import shlex

LOCK = r"""
lock() {
  # A symbolic link is made whole or not at all, and names its holder; a holder that died is passed over.
  told=
  while ! ln -s $$ "$1" 2>/dev/null; do
    holder=$(readlink "$1" 2>/dev/null) || holder=
    if [ -n "$holder" ] && ! kill -0 "$holder" 2>/dev/null; then rm -f "$1"; continue; fi
    [ -n "$told" ] || echo "waiting for another dls (process $holder) to finish"
    told=1
    sleep 1
  done
  LOCKED=$1
}
LOCKED=
TEMP=
cleanup() {
  [ -z "$TEMP" ] || rm -rf "$TEMP"
  [ -z "$LOCKED" ] || rm -f "$LOCKED"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM
"""

OURS = r"""
ours() {
  # A process of that number that is a server of ours: numbers are used again, and a zombie still takes signals.
  kill -0 "$1" 2>/dev/null || return 1
  if [ -r "/proc/$1/cmdline" ]; then tr '\0' ' ' <"/proc/$1/cmdline"; else ps -o args= -p "$1" 2>/dev/null; fi \
    | grep -q -e '--launch-file'
}
pid_in() { sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p' "$1" 2>/dev/null | head -n 1; }
"""


def private_directory(path: str) -> str:
    """Make the directory, and every one above it that is ours to make, or fail when another user holds it."""
    quoted = shlex.quote(path)
    parts = path.split("/")
    # /tmp itself is not ours; of a directory that the user named, neither is what lies above.
    ours = range(3, len(parts)) if parts[1] == "tmp" and parts[2].startswith("dls-") else ()
    above = "".join(f"{shlex.quote('/'.join(parts[:n]))} " for n in ours)
    return f"""
private() {{
  mkdir -p -m 700 "$1" 2>/dev/null || true
  if [ ! -d "$1" ] || [ -L "$1" ] || [ ! -O "$1" ]; then echo "$1 belongs to somebody else"; exit 71; fi
}}
for D in {above}{quoted}; do
  private "$D"
  chmod 700 "$D"
done
"""
