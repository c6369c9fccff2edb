"""Tests of yoloprune/analysis."""
