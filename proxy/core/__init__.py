"""Pure decisions: time, randomness and bytes come in, values go out."""
