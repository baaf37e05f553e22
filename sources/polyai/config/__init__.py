"""Settings: values, validators, regions and time zones. No request is made here."""
