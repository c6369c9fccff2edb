"""Tests of yoloprune/criteria."""
