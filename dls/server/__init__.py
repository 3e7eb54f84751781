"""The server on the GPU host: decodes requests, runs an engine, encodes masks.

Never imports `dls.remote`, paramiko or rich.
"""
