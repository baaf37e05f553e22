"""Command line `polyai-warehouse`."""
