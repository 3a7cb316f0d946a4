"""Is it true? Predicted beside measured, with intervals."""
