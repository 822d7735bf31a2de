"""What main_moco.py is made of: the pretexts by name, the training step, resuming."""
