"""One reader a source; every reader ends in a store."""
