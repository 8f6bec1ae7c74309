"""Dagster integration of mlforge."""
