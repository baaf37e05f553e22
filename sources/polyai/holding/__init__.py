"""Legal holds: placing, releasing and listing them."""
