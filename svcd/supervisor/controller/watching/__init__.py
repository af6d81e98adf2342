"""What is watched from outside: readiness, health, use, resources and the calendar."""
