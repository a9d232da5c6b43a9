"""The report: ``collect`` makes figures of manifests and tables, ``page`` makes HTML of figures."""
