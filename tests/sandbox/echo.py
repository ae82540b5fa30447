"""A worker for tests: it answers the sum of its setup and a number, or does what a word says."""

import os
import sys
import time


def main() -> None:
    setup = None
    while head := sys.stdin.buffer.read(8):
        message = sys.stdin.buffer.read(int.from_bytes(head, "big")).decode()
        if setup is None:
            setup = int(message)
            answer = "ready"
        elif message == "sleep":
            time.sleep(60)
            answer = ""
        elif message == "short sleep":
            time.sleep(1)
            answer = "slept"
        elif message == "die":
            os._exit(3)
        elif message == "bomb":
            answer = str(len(bytearray(190_000_000)))
        elif message == "much":
            answer = "x" * 100_000
        elif message == "lie":
            sys.stdout.buffer.write(bytes([255] * 8) + b"x")
            sys.stdout.buffer.flush()
            time.sleep(60)
            answer = ""
        elif message == "pid":
            answer = str(os.getpid())
        else:
            answer = str(setup + int(message))
        sys.stdout.buffer.write(len(answer).to_bytes(8, "big") + answer.encode())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
