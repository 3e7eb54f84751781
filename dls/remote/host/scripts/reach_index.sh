# Ask the package index that pip is configured for about a package; nothing is written.
# Values: PYTHON, LIMIT (seconds).
# Status: 0 the index answered, 2 this pip can't ask, else it did not answer.
# shellcheck shell=sh
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_RETRIES=0 PIP_DEFAULT_TIMEOUT="$LIMIT" PIP_NO_CACHE_DIR=1
"$PYTHON" -m pip help index >/dev/null 2>&1 || exit 2
# pip's own limit is one for each index.
"$PYTHON" -c '
import subprocess, sys
command = [sys.executable, "-m", "pip", "index", "versions", "click"]
try:
    sys.exit(min(1, subprocess.call(command, timeout=float(sys.argv[1]))))
except subprocess.TimeoutExpired:
    sys.exit(1)
' "$LIMIT" >/dev/null 2>&1
