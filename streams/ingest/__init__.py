"""One file per door format: from its outside shape to events and per-item errors."""
