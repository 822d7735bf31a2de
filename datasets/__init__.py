"""Satellite image time series on disk, found, read, checked and made into batches."""
