# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks share: two QEMUs in turn, samples, ratios, results.

A benchmark measures cells, for example "AHCI disk, 64 KiB reads, depth 8".  A
cell has pairs of samples, one of each QEMU, taken one right after the other; its
result is the median of the ratios within the pairs.
"""

import argparse
import fcntl
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get('QEMU_DMA_BUILD') or REPO / 'build').absolute()
VARIANTS = 'stock', 'patched'
MIB = 1 << 20
GIB = 1 << 30
TICKS = os.sysconf('SC_CLK_TCK')
BS = {'4k': 4 << 10, '64k': 64 << 10, '512k': 512 << 10}
RW = ['read', 'write', 'randread', 'randwrite']
# QEMU's names
AIO = ['threads', 'native', 'io_uring']
# More than this share of a CPU taken by others spoils a sample.
DISTURBED = 0.1


class BenchError(Exception):
    """What makes a cell fail, as a sentence for a person."""


# --- Statistics -------------------------------------------------------------------

def interval(values):
    """Around the median, with 95% confidence or all that so few values give.

    By order statistics: no assumption about the distribution.  With five values
    it is all of them (94%), with nine the second to the eighth (96%).
    """
    values = sorted(values)
    n, cut, outside = len(values), 0, 0
    for i in range((n - 1) // 2):
        outside += 2 * math.comb(n, i) / 2 ** n
        if outside > 0.05:
            break
        cut = i
    return values[cut], values[n - 1 - cut]


class Ratio:
    """Patched over stock: median, lowest and highest of the pairs."""

    def __init__(self, pairs):
        self.values = [b / a for a, b in pairs if a]
        self.median = statistics.median(self.values) if self.values else None
        self.interval = interval(self.values) if self.values else None

    def clearly(self, above, bound):
        """Is all of the interval above, or else below, the bound?"""
        return self.interval[0] > bound if above else self.interval[1] < bound

    def __str__(self):
        if not self.values:
            return '-'
        return f'{self.median:.2f} ({min(self.values):.2f}-{max(self.values):.2f})'


def in_turn(pairs):
    """(pair, 0 or 1) of every sample: A B, B A, A B, ..."""
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            yield pair, which


def take_pairs(count, take, begin=lambda: None, end=lambda: None):
    """Pairs of samples, in turn; take(0) makes one of stock, take(1) of patched.

    begin() and end() are called around each pair.
    A pair that had to share the CPUs with others is taken again, once.
    """
    pairs = [[None, None] for _ in range(count)]
    spoiled = 0
    for pair, which in in_turn(count):
        if pairs[pair] == [None, None]:
            begin()
        pairs[pair][which] = take(which)
        if None in pairs[pair]:
            continue
        if max(map(foreign, pairs[pair])) > DISTURBED:
            again = [take(0), take(1)]
            pairs[pair] = min(pairs[pair], again, key=lambda p: max(map(foreign, p)))
            spoiled += max(map(foreign, pairs[pair])) > DISTURBED
        end()
    if spoiled:
        print(f'warning: something else ran during {spoiled} of {count} pairs.',
              file=sys.stderr)
    return pairs


# --- What the machine does --------------------------------------------------------

class Cpu:
    """CPU seconds of a QEMU's threads: main loop, vCPU, all others together."""

    def __init__(self, pid, vcpus=()):
        self.pid, self.vcpus = pid, vcpus

    def process(self):
        # CPUCLOCK_SCHED of a process, as clock_getcpuclockid() makes it: threads
        # that have ended are in it.
        return time.clock_gettime(~self.pid << 3 | 2)

    def thread(self, tid):
        text = Path(f'/proc/{self.pid}/task/{tid}/schedstat').read_text()
        return int(text.split()[0]) / 1e9

    def read(self):
        main = self.thread(self.pid)
        vcpu = sum(map(self.thread, self.vcpus))
        return {'main': main, 'vcpu': vcpu, 'other': self.process() - main - vcpu}

    def faults(self):
        # After the name in parentheses, which may hold anything; proc(5)
        fields = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()
        return int(fields[7]) + int(fields[9])


def machine_busy():
    """CPU seconds that all CPUs together have not been idle."""
    fields = Path('/proc/stat').read_text().split('\n', 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / TICKS


def warn_if_busy():
    begun, busy, own = time.monotonic(), machine_busy(), time.process_time()
    time.sleep(0.5)
    share = (machine_busy() - busy - time.process_time() + own) / (time.monotonic() - begun)
    if share > DISTURBED:
        print(f'warning: something else takes {share:.0%} of a CPU (load average '
              f'{os.getloadavg()[0]:.1f}); what is measured now is not worth much.',
              file=sys.stderr)


# --- A QEMU without a guest -------------------------------------------------------

class Qtest:
    """A QEMU whose only guest is us, by the qtest protocol: a line out, a line back."""

    def __init__(self, qemu, arguments, directory, wrapper=(), limit=60):
        path = Path(directory) / f'{len(os.listdir(directory))}.sock'
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(1)
        server.settimeout(0.5)
        self.name = str(qemu)
        self.log = Path(directory) / 'log'
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(
                [*wrapper, self.name, '-accel', 'qtest', '-qtest', f'unix:{path}',
                 '-qtest-log', 'none', '-display', 'none', '-nodefaults',
                 *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + limit
        self.sock = None
        while not self.sock:
            try:
                self.sock = server.accept()[0]
            except TimeoutError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.end()
                    raise self.failure('did not start') from None
        self.sock.settimeout(limit)
        self.lines = self.sock.makefile('r')
        self.cpu = Cpu(self.process.pid)

    def failure(self, what):
        said = self.log.read_text(errors='replace')[-2000:]
        return BenchError(f'{self.name} {what}. It said:\n{said or "(nothing)"}')

    def send(self, *commands):
        """Send all commands, then take all answers; the last answer's words."""
        words = []
        try:
            self.sock.sendall(''.join(c + '\n' for c in commands).encode())
            for command in commands:
                words = self.lines.readline().split()
                while words and words[0] == 'IRQ':
                    words = self.lines.readline().split()
                if not words or words[0] != 'OK':
                    raise self.failure(f'answered "{" ".join(words)}" to "{command}"')
        except OSError as error:
            raise self.failure(f'does not answer ({error})') from None
        return words

    def __call__(self, *commands):
        """As send(); the value that the last one read, if it did."""
        words = self.send(*commands)
        return int(words[1], 16) if len(words) > 1 else None

    def write(self, addr, data):
        self.send(f'write {addr:#x} {len(data):#x} 0x{data.hex()}')

    def read(self, addr, size):
        return bytes.fromhex(self.send(f'read {addr:#x} {size:#x}')[1][2:])

    def pci_config(self, device, function, *settings):
        """Write (offset, value) pairs of 32 bits to the configuration space."""
        for offset, value in settings:
            address = 1 << 31 | device << 11 | function << 8 | offset
            self.send(f'outl 0xcf8 {address:#x}', f'outl 0xcfc {value:#x}')

    def end(self):
        self.process.kill()
        self.process.wait()


# --- Results ----------------------------------------------------------------------

class Results:
    """Records of cells, one JSON object a line; a file's are not measured again."""

    def __init__(self, path=None):
        self.path = path
        self.records = {}
        for line in path.read_text().splitlines() if path and path.exists() else ():
            try:
                # write_json() makes an array of the lines.
                self.put(json.loads(line.removesuffix(',')))
            except (ValueError, TypeError):
                pass                # cut off by an interruption: measured again

    def write_json(self, path):
        """All records as one JSON array, one a line."""
        lines = (json.dumps(shorter(r)) for r in self.records.values())
        path.write_text('[\n' + ',\n'.join(lines) + '\n]\n')

    @staticmethod
    def key(bench, cell):
        return json.dumps([bench, cell], sort_keys=True)

    def put(self, record):
        self.records[self.key(record['bench'], record['cell'])] = record

    def has(self, bench, cell):
        record = self.records.get(self.key(bench, cell))
        return record is not None and 'error' not in record

    def get(self, bench, **cell):
        """The records of a benchmark whose cells have these values."""
        return [r for r in self.records.values() if r['bench'] == bench
                and all(r['cell'].get(key) == value for key, value in cell.items())]

    def of(self, bench, cells):
        """The records of these cells, as far as there are any"""
        keys = [self.key(bench, cell) for cell in cells]
        return [self.records[key] for key in keys if key in self.records]

    def add(self, bench, cell, **data):
        record = {'bench': bench, 'cell': cell, **data}
        self.put(record)
        if self.path:
            with open(self.path, 'a') as f:
                f.write(json.dumps(record) + '\n')
        return record


def shorter(value):
    """The same with no more digits than were measured."""
    if isinstance(value, float):
        return float(f'{value:.5g}')
    if isinstance(value, dict):
        return {key: shorter(v) for key, v in value.items()}
    return [shorter(v) for v in value] if isinstance(value, list) else value


def status(records):
    return 1 if any('error' in record for record in records) else 0


def rate(sample):
    return sample['bytes'] / sample['seconds'] / MIB


def cpu_per_gib(sample, *threads):
    """CPU seconds per GiB of these threads, of all if none is named."""
    cpu = sample['cpu']
    return sum(cpu[t] for t in threads or cpu) * GIB / sample['bytes']


def foreign(sample):
    """What others used meanwhile, as a share of one CPU"""
    return sample.get('foreign', 0)


def of_pairs(record, figure, *arguments):
    """[stock's and patched's figure of each pair]"""
    return [[figure(sample, *arguments) for sample in pair] for pair in record['pairs']]


def median_of(samples, figure, *arguments):
    return statistics.median(figure(sample, *arguments) for sample in samples)


def medians(pairs):
    return [statistics.median(column) for column in zip(*pairs)]


def print_table(rows, left=1, file=None):
    """Rows of strings, the first one the heading; so many columns left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(cell.ljust(width) if i < left else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))).rstrip(),
              file=file)


def add_directory(parser):
    """Where the image is: a disk's filesystem, since cache=none is for those."""
    parser.add_argument('--directory', type=Path, default=BUILD,
                        help='for the image (default: %(default)s)')


def make_image(directory, size):
    """The name of a new file of random bytes, all of which are on the disk."""
    with tempfile.NamedTemporaryFile(dir=directory, prefix='qemu-dma-bench-',
                                     delete=False) as image:
        try:
            for _ in range(size // MIB):
                image.write(os.urandom(MIB))
            image.flush()
            os.fsync(image.fileno())
        except OSError:
            os.unlink(image.name)
            raise
    return image.name


# --- Command lines ----------------------------------------------------------------

def choice(allowed):
    """For argparse: a list of these words, separated by commas."""
    def convert(text):
        words = text.split(',')
        for word in words:
            if word not in allowed:
                raise ValueError
        return words
    convert.__name__ = f'list of {", ".join(allowed)}'
    return convert


def numbers(text):
    return [int(word) for word in text.split(',')]


def add_list(parser, option, allowed, default):
    parser.add_argument(option, type=choice(allowed), default=default, metavar='LIST',
                        help=f'of {",".join(allowed)} (default: {",".join(default)})')


def add_fio_options(parser, rw, aio, iodepth):
    """What fio is to do; the arguments are the defaults."""
    add_list(parser, '--bs', list(BS), list(BS))
    add_list(parser, '--rw', RW, rw)
    add_list(parser, '--aio', AIO, aio)
    parser.add_argument('--iodepth', type=numbers, default=iodepth, metavar='LIST',
                        help=f'(default: {",".join(map(str, iodepth))})')


def parser(doc, json_file=True, both_qemus=True):
    """What every benchmark takes; the help is the program's own documentation."""
    result = argparse.ArgumentParser(description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    if json_file:
        result.add_argument('--json', type=Path, metavar='FILE',
                            help='append results, one cell a line; what is there '
                            'already is not measured again')
    for variant in VARIANTS if both_qemus else ():
        result.add_argument(f'--{variant}', type=Path, metavar='QEMU',
                            default=BUILD / variant / 'qemu-system-x86_64',
                            help='(default: %(default)s)')
    return result


def qemus(args):
    """The two QEMUs; ends if one is not there."""
    paths = [getattr(args, variant) for variant in VARIANTS]
    for path in paths:
        if not os.access(path, os.X_OK):
            sys.exit(f'error: {path} is missing: run "make stock build" first.')
    return paths


def end(number, frame):
    raise SystemExit(f'error: interrupted by {signal.Signals(number).name}')


def alone():
    """A lock; while it is open, no other benchmark of this build directory measures."""
    (BUILD / 'lock').mkdir(parents=True, exist_ok=True)
    lock = open(BUILD / 'lock/bench', 'w')
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('waiting for another benchmark to end', file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def main(parser, run, measures=True):
    """Do what the command line says and exit; run(args) returns the status."""
    args = parser.parse_args()
    # Unwind the stack, so that QEMUs are ended and files removed.
    for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:
        signal.signal(number, end)
    try:
        with alone() if measures else nullcontext():
            sys.exit(run(args))
    except (BenchError, OSError) as error:
        sys.exit(f'error: {error}')
