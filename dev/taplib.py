# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of our own programs share: loading them, and reports as TAP."""

import sys
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

sys.dont_write_bytecode = True      # no __pycache__ in the source tree


def program(path):
    """A program's functions: its name is not a module's."""
    name = path.name.replace('-', '_')
    module = module_from_spec(spec_from_loader(name, SourceFileLoader(name, str(path))))
    # Where dataclasses look for their module
    sys.modules[name] = module
    module.__spec__.loader.exec_module(module)
    return module


class Tap(unittest.TestResult):
    """One line a test, as dev/check reads it"""

    def stopTest(self, test):
        bad = [text for t, text in self.failures + self.errors if t is test]
        skipped = [f' # SKIP {reason}' for t, reason in self.skipped if t is test]
        print(f'{"not " if bad else ""}ok {self.testsRun} - {test.id().partition(".")[2]}'
              + ''.join(skipped))
        for line in ''.join(bad).splitlines():
            print(f'# {line}')
        super().stopTest(test)


def main():
    """Run the tests of the program that calls; its exit status"""
    result = Tap()
    unittest.defaultTestLoader.loadTestsFromModule(sys.modules['__main__']).run(result)
    return 0 if result.wasSuccessful() else 1
