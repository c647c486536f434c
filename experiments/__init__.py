"""The studies, and what turns runs into answers."""

if __name__ != "simsched.experiments":
    raise ImportError("import simsched.experiments: the bare name would load this room twice")
