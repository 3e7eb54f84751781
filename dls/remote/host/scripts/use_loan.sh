# Use a network that is lent: set its variables, unset those that lead past it, and write its certificates, after those that
# the host trusts, into a private folder, which is removed when the script ends. What follows runs in a subshell.
# Values: LOAN_SET (lines NAME=VALUE), LOAN_UNSET (names), LOAN_CERTIFICATES (PEM, or empty). Arguments: names of variables
# that are to hold the path of the certificates.
# Status: 73 no room for the certificates.
# shellcheck shell=sh
DLS_LOAN=
# shellcheck disable=SC2086 # names without spaces
unset $LOAN_UNSET
# No here-document: bash writes one to a file, and the secret is to be in none.
set -f
loan_ifs=$IFS
IFS='
'
for loan_line in $LOAN_SET; do export "${loan_line?}"; done
IFS=$loan_ifs
set +f
if [ -n "$LOAN_CERTIFICATES" ]; then
  DLS_LOAN=$(umask 077; mktemp -d "${TMPDIR:-/tmp}/dls-loan-XXXXXXXXXX" 2>/dev/null || mktemp -d "$HOME/.dls-loan-XXXXXXXXXX") || exit 73
  trap 'rm -rf "$DLS_LOAN"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 141' PIPE
  trap 'exit 143' TERM
  # The same places as in OpenSSL's packages: Debian, Fedora, openSUSE, Alpine and macOS.
  for loan_file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
    if [ -r "$loan_file" ]; then break; fi
    loan_file=/dev/null
  done
  (umask 077; { cat "$loan_file"; printf '\n%s\n' "$LOAN_CERTIFICATES"; } >"$DLS_LOAN/certificates.pem") || exit 73
  for loan_name in "$@"; do export "$loan_name=$DLS_LOAN/certificates.pem"; done
fi
unset LOAN_SET LOAN_UNSET LOAN_CERTIFICATES loan_line loan_ifs loan_file
