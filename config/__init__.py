"""What the operator says: settings, clock, logs, metrics, and the workspace folder."""
