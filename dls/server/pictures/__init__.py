"""Pictures of sessions: three slices of an image with the mask over them, made from the session's files."""
