"""May this message go now, later, or never: one file per rule."""
