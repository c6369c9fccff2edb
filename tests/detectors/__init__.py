"""Tests of yoloprune/detectors."""
