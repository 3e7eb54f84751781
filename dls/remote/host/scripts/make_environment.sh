# Make the environment with its packages: under a lock, in a temporary place, moved to its own when complete.
# Needs lock.sh and private.sh. Arguments: the packages.
# Values: ROOT, ENVIRONMENT (its directory), RUN (directory of the lock), OWN_CACHES (1 or empty), TOOL (UV, FETCH_UV or
# PIP), UV (path of uv), HOST_PYTHON (path, or empty), BASE_PYTHON (what uv makes the environment from), PIP_WORKS (1 when
# HOST_PYTHON can make the environment by itself), TORCH_BACKEND (auto, cpu or empty), COMPLETE (text of complete.json).
# Status: 71 the run directory is another user's, 73 no room, 74 the packages can't be installed.
# shellcheck shell=sh
set -u
umask 077
exec 2>&1
make_private "$RUN"
if [ -n "$OWN_CACHES" ]; then export UV_CACHE_DIR="$ROOT/cache/uv" PIP_CACHE_DIR="$ROOT/cache/pip"; fi
export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1 UV_NO_CONFIG=1 UV_NO_PROGRESS=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX
HOST_PYTHON=${HOST_PYTHON:-false}

fetch_uv() {
  [ -x "$ROOT/uv/bin/uv" ] && return 0
  echo "fetching uv"
  if "$HOST_PYTHON" -m pip --version >/dev/null 2>&1; then
    "$HOST_PYTHON" -m pip install --quiet --target "$TEMP/uv" uv || return 1
  else
    "$HOST_PYTHON" -m venv "$TEMP/venv" || return 1
    "$TEMP/venv/bin/python" -m pip install --quiet --target "$TEMP/uv" uv || return 1
  fi
  rm -rf "$ROOT/uv" && mv "$TEMP/uv" "$ROOT/uv"
}

# install_with_uv UV PACKAGE...
install_with_uv() {
  uv=$1
  shift
  rm -rf "$TEMP/env"
  "$uv" venv --quiet --python "$BASE_PYTHON" "$TEMP/env" || return 1
  "$uv" pip install ${TORCH_BACKEND:+"--torch-backend=$TORCH_BACKEND"} --python "$TEMP/env/bin/python" "$@"
}

# install_with_pip PACKAGE...
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
  "$TEMP/env/bin/python" -m pip install --progress-bar off "$@"
}

# install_packages PACKAGE...: uv first, since it finds the build of torch that fits the driver; then pip.
install_packages() {
  case $TOOL in
    UV) install_with_uv "$UV" "$@" && return 0 ;;
    FETCH_UV) fetch_uv && install_with_uv "$ROOT/uv/bin/uv" "$@" && return 0 ;;
  esac
  [ -n "$PIP_WORKS" ] && install_with_pip "$@"
}

mkdir -p "$ROOT/env" || exit 73
lock "$RUN/install.lock"
if [ -f "$ENVIRONMENT/complete.json" ] && [ -x "$ENVIRONMENT/bin/python" ]; then
  echo "made by another dls meanwhile"
  exit 0
fi
# Remove what a killed installer left behind on this host.
for left in "$ROOT/env/.making-$(uname -n)-"*; do
  [ -d "$left" ] && ! kill -0 "${left##*-}" 2>/dev/null && rm -rf "$left"
done
TEMP="$ROOT/env/.making-$(uname -n)-$$"
mkdir "$TEMP" || exit 73
install_packages "$@" || exit 74
printf '%s\n' "$COMPLETE" >"$TEMP/env/complete.json" || exit 73
rm -rf "$ENVIRONMENT" && mv "$TEMP/env" "$ENVIRONMENT" || exit 73
