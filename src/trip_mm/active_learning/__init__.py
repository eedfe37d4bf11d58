"""Active learning: a committee runs dynamics, is taught where it disagrees, and runs again."""
