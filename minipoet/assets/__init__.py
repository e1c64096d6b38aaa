"""The embedded base model (`poet_tiny/`) and the embedded corpus (`pushkin_manner.txt`), both made for this package."""
