"""Tests against a real Apache Kafka broker, and the harness that starts one."""
