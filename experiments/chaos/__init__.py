"""Chaos: the hunt's faults done to real processes, and what they and their clients saw of it."""
