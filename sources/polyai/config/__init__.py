"""Settings, validators, regions and time zones."""
