"""Entry point of `python -m polyai`, the same as `polyai-warehouse`."""

from .cli.app import main

if __name__ == "__main__":
    main()
