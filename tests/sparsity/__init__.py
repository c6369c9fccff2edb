"""Tests of yoloprune/sparsity."""
