"""Tests of yoloprune/pipeline."""
