"""The move of a folder of the embedded log to Kafka."""
