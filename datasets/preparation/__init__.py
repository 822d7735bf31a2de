"""What `python -m datasets.prepare` is made of."""
