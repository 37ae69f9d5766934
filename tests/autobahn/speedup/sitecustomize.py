"""Makes the suite's own check of UTF-8 fast; nothing of what it judges.

The suite validates every text byte by byte in Python, which takes three quarters of its time. A text that the decoder of
Python takes is valid, except that Python 2 also takes surrogates: what contains one, and what is not valid or not
complete, goes the slow way. Python imports a module of this name at its start when the directory is in PYTHONPATH.
"""

import re

from autobahn.websocket import utf8validator

SURROGATE = re.compile(b"\xed[\xa0-\xbf]")
Slow = utf8validator.Utf8Validator


class Utf8Validator(object):
    def __init__(self):
        self.reset()

    def reset(self):
        self.slow = Slow()
        self.slow.reset()
        self.between_characters = True
        self.total = 0

    def validate(self, octets):
        self.total += len(octets)
        if self.between_characters and not SURROGATE.search(octets):
            try:
                octets.decode("utf8")
                return True, True, len(octets), self.total
            except UnicodeDecodeError:
                pass
        valid, complete, here, _ = self.slow.validate(octets)
        self.between_characters = valid and complete
        return valid, complete, here, self.total - len(octets) + here


utf8validator.Utf8Validator = Utf8Validator
