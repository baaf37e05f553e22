"""Copy of a warehouse to another destination."""
