"""Changes of what is configured: applied, rolled out, updated in place, children among them."""
