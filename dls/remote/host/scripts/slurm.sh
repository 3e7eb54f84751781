# Library: Slurm's commands, which login files may have to make known.
# shellcheck shell=sh disable=SC2329

# use_slurm: find the commands and Slurm's configuration as a login shell would; end with status 69 where there are none.
use_slurm() {
  command -v sbatch >/dev/null 2>&1 && return
  # In a shell of its own, which a login file may end.
  # shellcheck disable=SC1091
  found=$(
    . /etc/profile >/dev/null 2>&1
    printf '%s\n%s\n' "$PATH" "${SLURM_CONF-}"
  )
  PATH=$(printf '%s\n' "$found" | head -n 1)
  SLURM_CONF=$(printf '%s\n' "$found" | tail -n 1)
  if [ -n "$SLURM_CONF" ]; then export SLURM_CONF; else unset SLURM_CONF; fi
  command -v sbatch >/dev/null 2>&1 || exit 69
}
