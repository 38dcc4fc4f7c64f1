"""An independent recomputation of what the demo must end with."""
