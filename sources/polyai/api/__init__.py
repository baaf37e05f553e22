"""HTTP client of the PolyAI APIs: endpoints, transport, retries, throttling, decoding."""
