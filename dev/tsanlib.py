# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of ThreadSanitizer's reports are about the series.

QEMU itself has data races, most of them benign, and TSan does not know all of
QEMU's means of synchronization.  A report is the series' if one of the racing
accesses is made on a line that the series adds, or by what such a line calls:
one of the first DEPTH functions in QEMU's source.  What is called from there on
has its own locks, or has not, whoever calls it.
"""

import re
import subprocess
from collections import Counter

# An access through an inline function or two, such as stat64_add()
DEPTH = 3

FRAME = re.compile(r'^ +#\d+ (\S+) (\S+?):(\d+)', re.M)
# Parts of a report that are no accesses: where memory and threads come from
ORIGIN = re.compile(r' *(Location|Thread|Mutex|As if|Hint|SUMMARY)\b')


class Series:
    """The lines that the series adds to a tree."""

    def __init__(self, tree, adds):
        self.tree = tree
        self.files = set(adds)
        self.lines = set()
        git = ['git', '-C', str(tree)]
        base = subprocess.run([*git, 'rev-list', '--max-parents=0', 'HEAD'], check=True,
                              stdout=subprocess.PIPE, text=True).stdout.split()[0]
        diff = subprocess.run([*git, 'diff', '-U0', base, 'HEAD'], check=True,
                              stdout=subprocess.PIPE).stdout.decode('latin-1')
        for m in re.finditer(r'^\+\+\+ b/(.*)|^@@ -\S+ \+(\d+)(?:,(\d+))? @@', diff, re.M):
            if m[1]:
                path = m[1]
            else:
                start, count = int(m[2]), int(m[3] or 1)
                self.lines.update((path, n) for n in range(start, start + count))

    def has(self, path, line):
        return path in self.files or (path, line) in self.lines


def frames(stack, tree):
    """(function, path in the tree, line) of those that are in QEMU's source."""
    for function, where, line in FRAME.findall(stack):
        path = where.partition(f'/{tree.name}/')[2]
        if path:
            yield function, path, int(line)


def reports(text):
    """(kind, stacks of the accesses) of each report in a log."""
    for report in re.split('^=+\n', text, flags=re.M):
        m = re.match(r'WARNING: ThreadSanitizer: (.*) \(pid=\d+\)\n', report)
        if m:
            yield m[1], [part for part in re.split(r'\n\s*\n', report[m.end():])
                         if not ORIGIN.match(part) and FRAME.search(part)]


def judge(logs, series):
    """Count the series' reports, by what they say, and others about QEMU's source."""
    ours, others = Counter(), 0
    for log in logs:
        for kind, stacks in reports(log.read_text(errors='replace')):
            tops = [list(frames(stack, series.tree))[:DEPTH] for stack in stacks]
            if any(series.has(path, line) for top in tops for _, path, line in top):
                ours[kind + ': ' + ', against '.join(
                    ' in '.join(f'{f}() at {p}:{n}' for f, p, n in top) or 'unknown'
                    for top in tops)] += 1
            elif any(tops):
                others += 1
    return ours, others
