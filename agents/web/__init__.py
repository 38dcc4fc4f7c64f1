"""What a process answers: health, metrics, and the commands of its operators."""
