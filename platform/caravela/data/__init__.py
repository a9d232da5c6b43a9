"""Reading, extracting, tokenizing, packing and ordering of text."""
