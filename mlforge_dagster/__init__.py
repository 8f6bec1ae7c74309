"""The Dagster integration of mlforge; empty in 0.6.0, see the README."""
