"""What is known of a user, and how what happens changes it."""
