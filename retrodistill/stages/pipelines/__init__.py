"""Stages chained: each step writes an artifact folder, skipped while that is up to date."""
