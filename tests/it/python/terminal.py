"""A terminal in which a program asks for passwords: says what was to be seen in it, one JSON object a line.

Arguments: what to type at each prompt, with commas between; then the program and its arguments.
"""

import json
import os
import pty
import sys
import termios
import time

PATIENCE = 60


def wait_until_it_hides():
    """A program that has asked is about to turn the echo off: nobody types so fast as this one would."""
    deadline = time.monotonic() + PATIENCE
    while termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < deadline:
        time.sleep(0.01)


typed, program = sys.argv[1].split(","), sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.execv(program[0], program)

seen = b""
prompts = 0
while True:
    try:
        more = os.read(terminal, 1024)
    except OSError:
        break
    if not more:
        break
    seen += more
    while prompts < len(typed) and seen.count(b": ") > prompts:
        wait_until_it_hides()
        os.write(terminal, typed[prompts].encode() + b"\r")
        prompts += 1

_, status = os.waitpid(child, 0)
print(json.dumps({"ended": {"seen": seen.decode(), "code": os.waitstatus_to_exitcode(status)}}), flush=True)
