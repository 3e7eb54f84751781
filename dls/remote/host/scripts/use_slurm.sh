# Make Slurm's commands and the cluster's name known to what follows. Needs slurm.sh.
# shellcheck shell=sh
use_slurm
name_cluster
