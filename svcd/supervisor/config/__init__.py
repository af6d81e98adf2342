"""From bytes to validated, immutable specs. Importing this package imports no parser: take what you need by module.

``launch`` and ``plan`` are stdlib only (the daemon reads them); ``load`` brings YAML (the CLI uses it).
"""
