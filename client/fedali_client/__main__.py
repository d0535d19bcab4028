"""``python -m fedali_client`` is the command ``fedali-client``."""

from fedali_client.cli import main

if __name__ == "__main__":
    main()
