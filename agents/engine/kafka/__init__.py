"""The Kafka transport: membership by Faust, slices by our own reader, a transaction per slice and partition."""
