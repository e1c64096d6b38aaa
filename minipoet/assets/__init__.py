"""All made for this package: the base model `poet_tiny/`, `pushkin_manner.txt` (verse), `pushkin_prose_manner.txt`."""
