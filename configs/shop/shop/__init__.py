"""A shop of five services (catalog, billing, orders, mailer, reports) and two programs (web, load)."""
