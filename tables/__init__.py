"""What is remembered: RocksDB behind typed views, and the log of the embedded transport."""
