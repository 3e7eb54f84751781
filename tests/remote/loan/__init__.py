"""Tests of `dls.remote.loan`."""
