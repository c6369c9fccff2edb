"""The YOLO layer: what Ultralytics' networks, trainers, validators and exporters need."""
