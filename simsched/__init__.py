"""simsched: one scheduling core for real-time speech translation, in two worlds."""

__version__ = "0.1.0"
