"""The command line: a client like any other, and the one who validates and launches."""
