"""`python -m acoustic` is the `acoustic` command."""

import sys

if __name__ == "__main__":
    try:
        from .cli import main
    except KeyboardInterrupt:  # while it still loads
        sys.exit(130)
    main()
