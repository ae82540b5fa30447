"""``python -m prefero`` is the command line, so that ``torchrun -m prefero train …`` works."""

from prefero.cli.main import run

if __name__ == "__main__":
    run()
