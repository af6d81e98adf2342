"""The command line: asks a running daemon over its socket, and is the one who validates and launches."""
