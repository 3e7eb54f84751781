"""The GPU host's side: HTTP in, masks out. Never imports `dls.remote`, paramiko or rich."""
