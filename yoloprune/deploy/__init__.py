"""What a network costs where it is used: export formats, latency."""
