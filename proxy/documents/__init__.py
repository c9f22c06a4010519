"""Files that people write: their text, their YAML with a position for everything, and all that is wrong with them."""
