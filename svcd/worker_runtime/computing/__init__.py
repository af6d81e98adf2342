"""Where code runs beside the loop: threads and processes for computing and for blocking calls."""
