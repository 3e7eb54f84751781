# Library: whether a directory can hold an installation, and which other ones of the host could. Needs trusted.sh.
# Values: DISK_MIB, the space that is needed (0 for any).
# shellcheck shell=sh disable=SC2329

# find_storage_fault FOLDER: print why nothing can be installed below an existing directory: `read-only`, `denied`,
# `full`, `quota`, `noexec` or `failed`; nothing where it can.
find_storage_fault() {
  tried=$1/.dls-try-$(uname -n)-$$
  said=$(LC_ALL=C mkdir -m 700 "$tried" 2>&1 && fill "$tried/room" 2>&1) || name_fault "$said"
  if [ -z "$said" ] && printf '#!/bin/sh\n' >"$tried/program" && chmod 700 "$tried/program" && ! "$tried/program"; then
    echo noexec
  fi 2>/dev/null
  rm -rf "$tried" 2>/dev/null
}

# fill FILE: take the space that is needed, for a moment, and print nothing; print the system's message where it can't.
# Only so is a quota met, of which `df` knows nothing. Where space can't be reserved, as on NFS, a part of it is written.
fill() {
  if [ "$DISK_MIB" -gt 0 ] && fallocate --version 2>/dev/null | grep -q util-linux \
    && [ "$(stat -f -c %T "${1%/*}" 2>/dev/null)" != tmpfs ]; then
    said=$(LC_ALL=C fallocate -l "$((DISK_MIB * 1048576))" "$1" 2>&1) && return 0
    case $said in
      *'No space'* | *uota*)
        printf '%s' "$said"
        return 1
        ;;
    esac
  fi
  said=$(LC_ALL=C dd if=/dev/zero of="$1" bs=65536 count=256 2>&1) && return 0
  printf '%s' "$said"
  return 1
}

# name_fault MESSAGE: print the name of what the system's message says.
name_fault() {
  case $1 in
    *'Read-only'*) echo read-only ;;
    *'No space'*) echo full ;;
    *uota*) echo quota ;;
    *denied* | *'not permitted'*) echo denied ;;
    *) echo failed ;;
  esac
}

# find_free FOLDER: print the free KiB on its disk; nothing where that is unknown.
find_free() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4; exit }'; }

# has_space KIB: whether so much free space is enough; an unknown one counts as enough.
has_space() {
  case $1 in
    '' | *[!0-9]* | ???????????????????*) return 0 ;;
  esac
  [ "$1" -ge $((DISK_MIB * 1024)) ]
}

# place_in FOLDER NAME: print the directory of this user that could be made there; nothing where others could change it.
place_in() {
  line=$(describe "$1/.") || return 0
  if is_owned "$line" && [ -z "$(find_fault "$1")" ]; then
    printf '%s/dls' "${1%/}"
  else
    case $line in d????????[tT]*) printf '%s/%s-dls' "${1%/}" "$2" ;; esac
  fi
}

# list_folders NAME: print the directories in which hosts let their users put much: those that the host itself names come
# first, and those that outlive a restart.
list_folders() {
  for variable in SCRATCH WORK WORKDIR DATA; do printenv "$variable"; done
  for folder in /scratch /work /data /local /localscratch /local_scratch; do printf '%s\n' "$folder/$1" "$folder"; done
  echo /var/tmp
}

# list_places: print up to four directories that could hold the installation, each after its free KiB and a tab.
list_places() {
  name=$(id -un 2>/dev/null || id -u)
  list_folders "$name" | while IFS= read -r folder; do
    case $folder in /*) ;; *) continue ;; esac
    place=$(place_in "$folder" "$name")
    if [ -z "$place" ] || [ -n "$(find_fault "$place")" ]; then continue; fi
    free=$(find_free "$folder")
    if has_space "$free" && [ -z "$(find_storage_fault "$folder")" ]; then printf '%s\t%s\n' "$free" "$place"; fi
  done | awk '!seen[$0]++' | head -n 4
}
