"""Chaos with several workers and several brokers: what one worker alone cannot break."""
