"""Tests of yoloprune/deploy."""
