"""Compiled modules: how they are built, and the proof that they decide what the sources decide."""
