"""Which channels of a YOLO go: rankings, limits and searches on the way to a plan for a target."""
