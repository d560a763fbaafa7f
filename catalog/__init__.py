"""Remember, query and export what was captured; owns the vocabulary and the files on disk."""
