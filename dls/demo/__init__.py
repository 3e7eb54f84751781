"""`dls demo`: the main job where there is no SSH host."""
