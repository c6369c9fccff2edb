"""Tests of yoloprune/detectors/ultralytics."""
