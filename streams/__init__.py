"""What flows and what it means: records, rules and decisions, all pure."""
