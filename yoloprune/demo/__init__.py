"""The embedded digits detector and its data."""
