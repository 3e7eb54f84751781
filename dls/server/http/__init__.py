"""The HTTP server: the application, its middleware, and one short coroutine per route."""
