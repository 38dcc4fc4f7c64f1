"""May this message go now, later, or never? One file per rule."""
