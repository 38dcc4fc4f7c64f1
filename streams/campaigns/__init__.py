"""What a campaign is: its message, its trigger, its schedule and its variants."""
