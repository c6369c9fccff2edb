"""Tests of yoloprune/recovery."""
