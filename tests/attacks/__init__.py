"""What an adversary tried: one test or more a row of the table in docs/security-tests.md."""
