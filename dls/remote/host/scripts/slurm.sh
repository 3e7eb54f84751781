# Library: Slurm's commands, which login files may have to make known, and the cluster's name.
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

# name_cluster: set CLUSTER to the cluster's name, by which jobs of several clusters that share a home are told apart; end
# with status 70 where Slurm does not answer. Jobs have the same name in SLURM_CLUSTER_NAME.
name_cluster() {
  CLUSTER=$(scontrol show config | sed -n 's/^ClusterName[[:space:]]*=[[:space:]]*\([A-Za-z0-9._-]*\).*/\1/p')
  [ -n "$CLUSTER" ] || exit 70
}
