# Make the environment with its packages: under a lock, in a temporary place, moved to its own when complete.
# Needs lock.sh, private.sh, trusted.sh and sharing.sh. Arguments: the packages, as ranges of versions.
# Values: ROOT, ENVIRONMENT (its directory), RUN (directory of the lock), OWN_CACHES (1 or empty), TOOL (UV, FETCH_UV or
# PIP), UV (path of uv), HOST_PYTHON (path, or empty), BASE_PYTHON (what uv makes the environment from), PIP_WORKS (1
# when HOST_PYTHON can make the environment by itself), TORCH_BACKEND (auto, cpu or empty), PACKAGES_LOCK (text of a
# lock file that fits this host, or empty), PARCEL (the folder with the packages that the client has sent, or empty:
# then nothing is fetched, and nothing but the lock file's packages installed), UV_LOCK (text of the lock file of uv),
# COMPLETE (text of complete.json), VERIFIER (text of verify.py).
# The last line says what was installed: `locked`, `ranges`, or `there` where another dls made the environment meanwhile.
# Status: 65 a package is not the locked one, 70 the run directories there are another host's, 71 the run directory is
# another user's, 72 it can't be made, 73 no room, 74 the packages can't be installed, 77 a directory is another user's
# or open to others.
# shellcheck shell=sh
set -u
umask 077
exec 2>&1
make_directories "$ROOT" "$ROOT/env"
check_directories "$ENVIRONMENT" "$ROOT/run" "$ROOT/uv" "$ROOT/uv/bin" "$ROOT/python" "$ROOT/cache" "$ROOT/cache/uv" "$ROOT/cache/pip"
check_files "$ROOT/uv/bin/uv"
make_private "$RUN"
claim "$RUN"
if [ -n "$OWN_CACHES" ]; then
  export UV_CACHE_DIR="$ROOT/cache/uv" PIP_CACHE_DIR="$ROOT/cache/pip"
fi
# A Python of the user's own uv would stay when all of this is removed, or go when the user removes it.
export UV_PYTHON_INSTALL_DIR="$ROOT/python"
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 UV_NO_CONFIG=1 UV_NO_PROGRESS=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX
HOST_PYTHON=${HOST_PYTHON:-false}
INSTALLED=ranges

# look: pass an installer's words on; the status is 65 when one says that a hash is wrong, and 74 that the disk is full.
look() {
  found=0
  while IFS= read -r line || [ -n "$line" ]; do
    printf '%s\n' "$line"
    case $line in
      # The first sentence is uv's, the second one pip's.
      *'Hash mismatch'* | *'DO NOT MATCH THE HASHES'*) found=65 ;;
      *'No space left on device'* | *'Disk quota exceeded'*) [ "$found" != 0 ] || found=74 ;;
    esac
  done
  return "$found"
}

# watch COMMAND ARGUMENT...: run an installer. One that fails for a wrong hash or a full disk ends the script with that
# status: another installer would fetch everything anew, and fail for the same reason.
watch() {
  rm -f "$TEMP/done"
  { "$@" && : >"$TEMP/done"; } 2>&1 | look
  said=$?
  if [ -f "$TEMP/done" ]; then return 0; fi
  if [ "$said" != 0 ]; then exit "$said"; fi
  return 1
}

fetch_uv() {
  if [ -x "$ROOT/uv/bin/uv" ]; then return 0; fi
  echo "fetching uv"
  fetcher=$HOST_PYTHON
  if ! "$fetcher" -m pip --version >/dev/null 2>&1; then
    "$HOST_PYTHON" -m venv "$TEMP/venv" || return 1
    fetcher=$TEMP/venv/bin/python
  fi
  cat >"$TEMP/uv.txt" <<END
$UV_LOCK
END
  set -- -m pip install --quiet --target "$TEMP/uv"
  watch "$fetcher" "$@" --require-hashes --requirement "$TEMP/uv.txt" || "$fetcher" "$@" --upgrade uv || return 1
  # Another host that shares the directory may have fetched it meanwhile, and may be running it.
  see_anew "$ROOT" "$ROOT/uv/bin"
  [ -x "$ROOT/uv/bin/uv" ] || { rm -rf "$ROOT/uv" && mv "$TEMP/uv" "$ROOT/uv"; } || [ -x "$ROOT/uv/bin/uv" ]
}

# install_with_uv ARGUMENT...
install_with_uv() {
  rm -rf "$TEMP/env"
  "$UV" venv --quiet --python "$BASE_PYTHON" "$TEMP/env" || return 1
  "$UV" pip install ${PARCEL:+--offline --no-index "--find-links=$PARCEL/wheels"} \
    ${TORCH_BACKEND:+"--torch-backend=$TORCH_BACKEND"} --python "$TEMP/env/bin/python" "$@"
}

# install_with_pip ARGUMENT...
install_with_pip() {
  rm -rf "$TEMP/env"
  echo "making the environment with venv and pip"
  "$HOST_PYTHON" -m venv "$TEMP/env" || return 1
  if [ "$TORCH_BACKEND" = cpu ]; then
    echo "looking whether pip would bring CUDA to a host without a GPU"
    "$TEMP/env/bin/python" -m pip install --dry-run --quiet --report "$TEMP/report" "$@" || return 1
    if grep -q '"name": "nvidia-' "$TEMP/report"; then
      echo "pip would install torch with CUDA, several GB, on a host without a GPU"
      echo "install uv there, or hold pip to a CPU build of torch (PIP_CONSTRAINT)"
      return 1
    fi
  fi
  "$TEMP/env/bin/python" -m pip install ${PARCEL:+--no-index "--find-links=$PARCEL/wheels"} --progress-bar off "$@"
}

# install_locked: install exactly the packages of the lock file. uv takes the torch that it names, whatever the host has.
install_locked() {
  [ -n "$PACKAGES_LOCK" ] || return 1
  # A here-document, not an argument: the text is longer than an argument may be.
  cat >"$TEMP/lock.txt" <<END
$PACKAGES_LOCK
END
  (TORCH_BACKEND='' && install_packages --require-hashes --requirement "$TEMP/lock.txt")
  status=$?
  case $status in
    0) INSTALLED=locked ;;
    65 | 74) exit "$status" ;;
    *)
      [ -z "$PARCEL" ] || exit 74
      echo "the locked packages can't be installed here: taking the newest ones that fit"
      return 1
      ;;
  esac
}

# install_packages ARGUMENT...: uv first, since it finds the build of torch that fits the driver; then pip.
install_packages() {
  [ -n "$UV" ] && watch install_with_uv "$@" && return 0
  [ -n "$PIP_WORKS" ] && watch install_with_pip "$@"
}

# see_anew FOLDER...: look into folders that another host may have changed: opening one makes an NFS client ask the server.
see_anew() { ls "$@" >/dev/null 2>&1; }

# end_if_there: end the script where the environment is complete: a server may be running from it.
end_if_there() {
  see_anew "$ROOT/env" "$ENVIRONMENT"
  if [ -f "$ENVIRONMENT/complete.json" ] && [ -x "$ENVIRONMENT/bin/python" ]; then
    echo "made by another dls meanwhile"
    echo there
    exit 0
  fi
}

lock "$RUN/installing"
end_if_there
# Remove what a killed installer left behind on this host.
for left in "$ROOT/env/.making-$(uname -n)-"*; do
  [ -d "$left" ] && ! kill -0 "${left##*-}" 2>/dev/null && rm -rf "$left"
done
TEMP="$ROOT/env/.making-$(uname -n)-$$"
mkdir "$TEMP" || exit 73
choose_tmpdir "$TEMP"
if [ -n "$PARCEL" ]; then
  check_directories "$PARCEL" "$PARCEL/wheels"
  # Unpacked here, the packages move into the environment without being copied, and nothing of them is left behind.
  export UV_CACHE_DIR="$TEMP/cache" UV_PYTHON_DOWNLOADS=never PIP_NO_CACHE_DIR=1
fi
case $TOOL in
  FETCH_UV) fetch_uv && UV=$ROOT/uv/bin/uv ;;
  PIP) UV='' ;;
esac
# Only the lock file's hashes are those of this release: what is wrong with another one says nothing of a package.
install_locked || (install_packages "$@") || exit 74
"$TEMP/env/bin/python" -I -S -c "$VERIFIER" complete "$TEMP/env" "$COMPLETE" "$INSTALLED" >"$TEMP/env/complete.json" \
  || exit 73
# The lock is this host's; another one that shares the directory has its own.
end_if_there
[ ! -e "$ENVIRONMENT" ] || mv "$ENVIRONMENT" "$TEMP/old" || exit 73
# Where another host has put one there in this moment, `mv` would move ours into it; rename(2) refuses.
if ! "$TEMP/env/bin/python" -I -S -c 'import os, sys; os.rename(*sys.argv[1:])' "$TEMP/env" "$ENVIRONMENT"; then
  end_if_there
  exit 73
fi
echo "$INSTALLED"
