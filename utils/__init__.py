"""Metrics, reports, checkpoints, logs, schedules: small modules around training, each usable alone."""
