"""Whether the studio on this machine can work: what a container's health check runs. Needs the standard library only,
since it runs every half minute."""

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    """0 where it says that it is ready, else 1 with what it says."""
    port = os.environ.get("FLASH_STUDIO_PORT", "7860")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=4) as answer:
            return 0 if answer.status == 200 else 1
    except urllib.error.HTTPError as error:
        print(error.read().decode("utf-8", "replace")[:500])
    except OSError as error:
        print(f"It does not answer: {error}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
