"""What runs leave on disk: names, folders and logs, tables over runs, pictures."""
