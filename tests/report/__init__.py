"""Tests of yoloprune/report."""
