"""The redundancy study: its questions run one after another, and the rows that are kept in the repository."""
