"""What clients ask and are told: requests, status, stories, events."""
