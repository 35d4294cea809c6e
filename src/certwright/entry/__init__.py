"""The doors and the wiring: translate and connect, hold no rules."""
