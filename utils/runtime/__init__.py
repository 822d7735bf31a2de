"""The process: several of them as one run, signals, random streams, memory."""
