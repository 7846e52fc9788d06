"""``python -m dyninfer`` is the ``dyninfer`` command."""

from dyninfer.cli import main

if __name__ == "__main__":
    main()
