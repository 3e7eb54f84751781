# Use a network that is lent: set its variables, unset those that lead past it, and write its certificates into a private
# folder, which is removed when the script ends. What follows runs in a subshell.
# Values: LOAN_SET (lines NAME=VALUE), LOAN_UNSET (names), LOAN_CERTIFICATES (PEM, or empty). Arguments: names of variables
# that are to hold the path of the certificates.
# Status: 73 no room for the certificates.
# shellcheck shell=sh
DLS_LOAN=
# shellcheck disable=SC2086 # names without spaces
unset $LOAN_UNSET
while IFS= read -r loan_line; do
  [ -z "$loan_line" ] || export "${loan_line?}"
done <<END
$LOAN_SET
END
if [ -n "$LOAN_CERTIFICATES" ]; then
  DLS_LOAN=$(umask 077; mktemp -d "${TMPDIR:-/tmp}/dls-loan-XXXXXXXXXX" 2>/dev/null || mktemp -d "$HOME/.dls-loan-XXXXXXXXXX") || exit 73
  trap 'rm -rf "$DLS_LOAN"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 141' PIPE
  trap 'exit 143' TERM
  (umask 077; printf '%s\n' "$LOAN_CERTIFICATES" >"$DLS_LOAN/certificates.pem") || exit 73
  for loan_name in "$@"; do export "$loan_name=$DLS_LOAN/certificates.pem"; done
fi
unset LOAN_SET LOAN_UNSET LOAN_CERTIFICATES
