"""Calls between services: endpoints, connections, requests, streams and events, on both ends."""
