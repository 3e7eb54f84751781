"""Tests of the distributions in `packaging/`, each built and installed as a user installs it."""
