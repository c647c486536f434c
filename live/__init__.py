"""The real world: the core's ports on asyncio, Redis and WebSockets."""

if __name__ != "simsched.live":
    raise ImportError("import simsched.live: the bare name would load this room twice")
