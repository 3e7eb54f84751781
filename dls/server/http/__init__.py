"""The HTTP side: application, middleware, and one short coroutine a route."""
