"""Python services: their stubs, fork servers, kept state, and who may call whom."""
