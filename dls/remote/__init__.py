"""The laptop's side: log in, look, install, launch, forward. Never imports `dls.server`."""
