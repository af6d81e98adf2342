"""The lifecycle primitive, and a service's life built on it."""
