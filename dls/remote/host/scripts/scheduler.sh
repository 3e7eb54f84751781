# Library: whether jobs are submitted on this host.
# shellcheck shell=sh disable=SC2329

# has_slurm: whether Slurm's commands are here, or would be after a login, and belong to a cluster. Login files are read
# only where something else tells of Slurm: they can take long.
has_slurm() {
  if command -v sbatch >/dev/null 2>&1; then
    # The commands may be installed on a host of no cluster: they know of none then. Nothing asks a controller here.
    [ -n "${SLURM_CONF-}" ] || [ -e /etc/slurm/slurm.conf ] || [ -e /run/slurm/conf/slurm.conf ] \
      || sinfo --version </dev/null >/dev/null 2>&1
    return
  fi
  for sign in /etc/slurm /run/slurm /run/munge /var/run/munge /opt/slurm /cm/shared/apps/slurm /etc/profile.d/*slurm*; do
    if [ ! -e "$sign" ]; then continue; fi
    # In a shell of its own, which a login file may end.
    # shellcheck disable=SC1091
    (. /etc/profile; command -v sbatch) </dev/null >/dev/null 2>&1
    return
  done
  return 1
}

# has_gpu: whether this host has a GPU for computing, of NVIDIA or AMD.
has_gpu() {
  for device in /dev/nvidia[0-9]* /dev/kfd; do [ ! -e "$device" ] || return 0; done
  return 1
}
