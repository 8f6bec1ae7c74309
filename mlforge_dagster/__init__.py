"""The Dagster integration of mlforge; empty in 0.5.0, see the README."""
