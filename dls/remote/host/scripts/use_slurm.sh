# Make Slurm's commands known to what follows. Needs slurm.sh.
# shellcheck shell=sh
use_slurm
