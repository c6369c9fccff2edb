"""Ultralytics' networks: reading, tracing, data, validation, training and export, all through Ultralytics' own code."""
