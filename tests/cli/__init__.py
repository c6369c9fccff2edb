"""Tests of yoloprune/cli."""
