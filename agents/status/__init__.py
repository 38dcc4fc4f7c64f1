"""How it goes: what a process measures of itself, what the status page is made of, and what watches the loop."""
