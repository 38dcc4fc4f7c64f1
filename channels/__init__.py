"""How it leaves: one module per channel, rendering, and sinks for exports."""
