"""The engines: what one must do, the process that it runs in, and the engines that there are."""
