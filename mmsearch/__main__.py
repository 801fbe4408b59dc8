"""``python -m mmsearch`` and the ``mmsearch`` command."""


def main() -> None:
    """Run the command line."""
    from mmsearch.cli import run

    run()


if __name__ == "__main__":
    main()
