"""Tests of yoloprune/demo."""
