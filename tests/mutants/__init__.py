"""The checker is checked: deliberate faults in the core and its scripts, each found by the hunt."""
