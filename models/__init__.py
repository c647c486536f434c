"""The simulated world: the core's ports on SimPy, with modelled costs."""

if __name__ != "simsched.models":
    raise ImportError("import simsched.models: the bare name would load this room twice")
