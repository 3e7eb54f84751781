# Fetch a model on the host, by the code of dls there, in its environment. Needs private.sh.
# Values: RUN (run directory), PYTHON (the environment's), CODE (directory of our code), PROGRAM (text of fetch_model.py),
# SPEC (which model, in JSON).
# Prints what fetch_model.py does. Status: 71 the run directory is another user's, 72 it can't be made, else Python's.
# shellcheck shell=sh
umask 077
make_private "$RUN"
choose_tmpdir "$RUN"
cd / || exit 73
unset PYTHONHOME
export PYTHONPATH="$CODE"
exec "$PYTHON" -B -c "$PROGRAM" "$SPEC"
