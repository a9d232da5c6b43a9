"""Training of fastText models on labelled texts: language identification, and classifiers of quality."""
