# SPDX-License-Identifier: GPL-2.0-or-later
"""What the programs dev/series, dev/series-* share: series/ <-> build/tree.

docs/series.md explains the format.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from fnmatch import fnmatch
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get('QEMU_DMA_BUILD', REPO / 'build')).absolute()
SERIES = REPO / 'series'
ORDER = SERIES / 'series'
# Our stanza of QEMU's file of that name, and the section after which it goes.
MAINTAINERS = 'MAINTAINERS'
MAINTAINERS_AFTER = 'Block I/O path'
SUBMITTER = 'M: @submitter@\n'

# Commits in build/tree must not depend on who applies the series and when.
IDENTITY = {f'GIT_{who}_{what}': value
            for who in ('AUTHOR', 'COMMITTER')
            for what, value in (('NAME', 'qemu-dma'), ('EMAIL', ''),
                                ('DATE', '2025-01-01T00:00:00 +0000'))}


class Error(Exception):
    """A sentence for the user, and on further lines what to do."""


def run(cmd, env=None, **kw):
    """Output of a command; its error output becomes an Error."""
    r = subprocess.run(cmd, env={**os.environ, **(env or {})},
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
    if r.returncode:
        raise Error(r.stderr.decode(errors='replace').strip() or
                    f'{" ".join(map(str, cmd))} failed.')
    return r.stdout


class Patch:
    """One file of series/: a message, the files it adds, a diff."""

    def __init__(self, name):
        self.name = name
        self.path = SERIES / name
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            raise Error(f'series/series names {name}, but series/{name} '
                        'does not exist.') from None
        # The diff is kept as bytes: QEMU has files in other encodings.
        head, found, self.diff = ('\n' + text.decode('latin-1')).partition('\n---\n')
        head = head[1:]
        m = re.fullmatch(r'Subject: (\S.*)\n(\n[\s\S]*)?', head + '\n')
        if not found or not m:
            raise Error(f'series/{name} is not a patch of ours: it must begin '
                        'with "Subject: ", and a line "---" must end the message.\n'
                        'docs/series.md shows the format.')
        self.head = head
        self.subject = m[1]
        lines = (m[2] or '').rstrip().split('\n')
        self.adds = []          # what it replaces is in here, too
        self.replaces = {}      # {path: how the hash of the base's file begins}
        while lines and (m := re.fullmatch(r'Adds: (\S+)|Replaces: (\S+) ([0-9a-f]{8,})\s*',
                                           lines[-1])):
            lines.pop()
            self.adds.insert(0, m[1] or m[2])
            if m[2]:
                self.replaces[m[2]] = m[3]
        self.message = '\n'.join([self.subject, *lines]).rstrip() + '\n'

    def write(self, diff, new_adds=()):
        """Replace the diff; the message stays as it is, byte for byte."""
        head = self.head
        for path, blob in self.replaces.items():
            head = re.sub(rf'(?m)^(Replaces: {re.escape(path)}) .*', rf'\1 {blob}', head)
        if new_adds:
            head = head.rstrip('\n') + ('\n' if self.adds else '\n\n')
            head += '\n'.join(f'Adds: {path}' for path in new_adds)
        tmp = self.path.with_suffix('.tmp')
        tmp.write_bytes(f'{head}\n---\n{diff}'.encode('latin-1'))
        tmp.replace(self.path)


def read_series():
    if not ORDER.exists():
        return []
    patches = []
    heading = None
    for line in ORDER.read_text().splitlines():
        name, found, comment = line.partition('#')
        if name.strip() in (p.name for p in patches):
            raise Error(f'series/series names {name.strip()} twice; keep one.')
        if name.strip():
            patches.append(Patch(name.strip()))
            patches[-1].heading = heading
        elif found:
            heading = comment.strip()
    seen = {}
    for p in patches:
        for path in p.adds:
            if path in seen:
                raise Error(f'{path} is named by "Adds:" in both '
                            f'{seen[path]} and {p.name}; keep one.')
            seen[path] = p.name
    unlisted = {f.name for f in SERIES.glob('*.patch')} - {p.name for p in patches}
    if unlisted:
        raise Error(f'series/{min(unlisted)} is not in series/series.\n'
                    'Add its name there, in order, or remove the file.')
    return patches


def find_patch(patches, wanted):
    name = wanted.split('/')[-1]
    found = [p for p in patches if p.name == name] or \
            [p for p in patches if name in p.name]
    if len(found) != 1:
        raise Error(f'"{wanted}" names {len(found)} patches: give one of\n' +
                    '\n'.join(p.name for p in found or patches))
    return found[0]


def check_adds(patches, base_dirs):
    """Every in-tree file of ours is in one patch, and every named one exists."""
    named = {path for p in patches for path in p.adds}
    for path in sorted(named):
        if not (REPO / path).is_file():
            raise Error(f'a patch says "Adds: {path}", but the repository has '
                        'no such file.\nRestore it, or remove the line.')
    for pattern in maintained():
        if not any(fnmatch(path, pattern) for path in named):
            raise Error(f'"F: {pattern}" in {MAINTAINERS} is about no file that a patch adds.')
    # Work in progress may lie around as long as git does not know it.
    ours = run(['git', '-C', REPO, 'ls-files', '-z']).decode().split('\0')
    for path in sorted(set(ours)):
        top, _, rest = path.partition('/')
        # In-tree files lie in a directory that the base has too.  docs/*.md and
        # docs/benchmark/ are about this repository, not about QEMU.
        if rest and top in base_dirs and not top.startswith('.') and \
                not re.fullmatch(r'docs/([^/]*\.md|benchmark/.*)', path) and \
                path not in named and (REPO / path).is_file():
            raise Error(f'the file {path} is in no patch\'s "Adds:".\n'
                        f'Add the line "Adds: {path}" to the patch in series/ '
                        'that introduces it, or remove the file.')


def maintained():
    """The patterns of our stanza for MAINTAINERS."""
    stanza = REPO / MAINTAINERS
    return re.findall(r'^F: (.*)', stanza.read_text(), re.M) if stanza.exists() else []


def add_stanza(text, files, submitter):
    """MAINTAINERS of the base with our stanza, as far as it is about these files.

    So each patch that adds a file adds the line for it, and only two places
    know: the stanza in the repository, and whoever sends the series.
    """
    lines = [line for line in (REPO / MAINTAINERS).read_text().splitlines(keepends=True)
             if not line.startswith('#')]
    stanza = ''.join(
        line.replace(SUBMITTER, f'M: {submitter}\n' if submitter else '') for line in lines
        if not line.startswith('F: ') or any(fnmatch(f, line[3:].strip()) for f in files))
    section = re.search(rf'^{re.escape(MAINTAINERS_AFTER)}\n(.+\n)+\n?', text, re.M)
    if not section:
        raise Error(f'{MAINTAINERS} of the base has no section "{MAINTAINERS_AFTER}".\n'
                    'Name another one in dev/serieslib.py.')
    return text[:section.end()] + stanza.strip() + '\n\n' + text[section.end():]


def hunk_of(diff, path, line):
    """The hunk of path in diff that git complains about by its first line."""
    number = 0
    current = None
    for text in diff.split('\n'):
        if text.startswith('diff --git '):
            number = 0
            current = text.rsplit(' b/', 1)[-1]
        elif text.startswith('@@ ') and current == path:
            number += 1
            if re.match(rf'@@ -{line}[, ]', text):
                return f'hunk {number}: {text}'
    return f'line {line}'


class Tree:
    """A git work tree: a first commit that is the base, and one per patch.

    Commits are made without the work tree, in a temporary index.  Only when all
    patches applied does the work tree move, and then only files whose content
    differs are written: ninja sees no change in the others.
    """

    def __init__(self, build):
        self.base_dir = BUILD / 'base'
        self.stamp = BUILD / 'stamp/base'
        self.dir = build / 'tree'
        self.env = {**IDENTITY, 'GIT_DIR': str(self.dir / '.git'),
                    'GIT_WORK_TREE': str(self.dir),
                    # A user's attributes, hooks and whitespace settings would
                    # change what is applied.
                    'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_NOSYSTEM': '1'}
        self.moving = self.dir / '.git/qemu-dma-moving'
        (build / 'lock').mkdir(parents=True, exist_ok=True)
        self.lock = open(build / 'lock/tree', 'w')
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def git(self, *args, **kw):
        env = {**self.env, **kw.pop('env', {})}
        if isinstance(kw.get('input'), str):
            kw['input'] = kw['input'].encode('latin-1')
        return run(['git', *args], env=env, **kw).decode('latin-1')

    def ref(self, name):
        try:
            return self.git('rev-parse', '-q', '--verify', name + '^{commit}').strip()
        except Error:
            return None

    def exists(self):
        return self.dir.is_dir() and self.ref('HEAD') is not None

    # -- the base -----------------------------------------------------------

    def import_base(self):
        """The commit of the base; refs/heads/base remembers it."""
        if not self.stamp.exists():
            raise Error('there is no base yet.\nRun dev/fetch first (make build does).')
        message = 'The base of the series\n\n' + self.stamp.read_text()
        if not (self.dir / '.git/HEAD').exists():
            self.dir.mkdir(parents=True, exist_ok=True)
            self.git('init', '-q', '-b', 'series', str(self.dir))
            # Everything here can be made again: speed counts, not safety.
            for key, value in (('gc.auto', '0'), ('core.fsync', 'none'),
                               ('core.compression', '0'), ('core.autocrlf', 'false'),
                               ('advice.detachedHead', 'false')):
                self.git('config', key, value)
        base = self.ref('base')
        if base and self.git('log', '-1', '--format=%B', base).strip() == message.strip():
            return base
        with tempfile.TemporaryDirectory(dir=self.dir / '.git') as tmp:
            env = {'GIT_WORK_TREE': str(self.base_dir), 'GIT_INDEX_FILE': tmp + '/index'}
            self.git('add', '--force', '--all', '.', env=env, cwd=self.base_dir)
            tree = self.git('write-tree', env=env).strip()
        base = self.git('commit-tree', tree, input=message).strip()
        self.git('update-ref', 'refs/heads/base', base)
        return base

    # -- applying -----------------------------------------------------------

    def build_commits(self, patches, base, submitter=None, env=None):
        """One commit on top of the other; nothing visible changes."""
        commits = [base]
        failures = []
        adds = [path for p in patches for path in p.adds]
        blobs = self.git('hash-object', '-w', '--no-filters', '--stdin-paths', cwd=REPO,
                         input='\n'.join(str(REPO / a) for a in adds)).split() if adds else []
        blob = dict(zip(adds, blobs))
        maintainers = (self.content(base, MAINTAINERS) or b'').decode()
        files = set()
        with tempfile.TemporaryDirectory(dir=self.dir / '.git') as tmp:
            index = {'GIT_INDEX_FILE': tmp + '/index'}
            self.git('read-tree', base, env=index)
            for p in patches:
                failures += self.apply_diff(p, index) + self.check_replaced(p, base)
                entries = [('100755' if os.access(REPO / a, os.X_OK) else '100644', blob[a], a)
                           for a in p.adds]
                if p.adds and maintained():
                    files.update(p.adds)
                    text = add_stanza(maintainers, files, submitter)
                    entries.append(('100644', self.store(text.encode()), MAINTAINERS))
                self.git('update-index', '--add', '--index-info', env=index,
                         input=''.join(f'{mode} {b}\t{path}\n' for mode, b, path in entries))
                tree = self.git('write-tree', env=index).strip()
                commits.append(self.git('commit-tree', tree, '-p', commits[-1], env=env or {},
                                        input=p.message).strip())
        if failures:
            raise Error('\n'.join([
                f'{len({f.split(",")[0] for f in failures})} of {len(patches)} patches do not '
                'apply to this base:', *failures,
                f'{self.dir} was left as it was.',
                '"dev/series-rebase" takes the series to this base with git rebase; or adapt '
                'these patches\nby hand to what the file looks like at that point of the series. '
                'docs/series.md says how.']))
        return commits

    def store(self, data):
        return run(['git', 'hash-object', '-w', '--no-filters', '--stdin'],
                   env=self.env, input=data).decode().strip()

    def check_replaced(self, p, base):
        """A file that replaces the base's was written for one state of that."""
        failures = []
        for a in p.adds:
            try:
                blob = self.git('rev-parse', '-q', '--verify', f'{base}:{a}').strip()
            except Error:
                blob = None
            wanted = p.replaces.get(a)
            if wanted is None and blob:
                raise Error(f'series/{p.name} adds {a}, which the base has, too.\n'
                            f'To replace it, say "Replaces: {a} {blob[:12]}".')
            if wanted and not (blob or '').startswith(wanted):
                failures.append(f'series/{p.name}, {a}: replaces {wanted}, which the base has '
                                f'as {blob[:12] if blob else "nothing"}')
        return failures

    def apply_diff(self, p, env):
        """Apply what can be applied; says what cannot."""
        if not p.diff.strip():
            return []
        touched = set(re.findall(r'^\+\+\+ b/(.*?)\t?$', p.diff, re.M))
        for a in [*p.adds, MAINTAINERS]:
            if a in touched:
                raise Error(f'{p.name} has a diff of {a}, but that file is kept whole in the '
                            'repository; keep one.')
        excluded = []
        failures = []
        while True:
            try:
                self.git('apply', '--cached', '--whitespace=nowarn',
                         *(f'--exclude={path}' for path in excluded), '-', env=env, input=p.diff)
                return failures
            except Error as e:
                found = [(path, int(line)) for path, line in
                         re.findall(r'patch failed: (.*):(\d+)$', str(e), re.M)]
                found += [(path, None) for path in
                          re.findall(r'^error: (.*): (?:does not exist|already exists)',
                                     str(e), re.M)]
                found = [(path, line) for path, line in found if path not in excluded]
                if not found:
                    raise Error(f'the patch series/{p.name} does not apply; git says:\n'
                                f'{e}') from None
                failures += [f'series/{p.name}, {path}, ' +
                             (hunk_of(p.diff, path, line) if line else
                              'which the base does not have')
                             for path, line in found]
                excluded += [path for path, _ in found]

    def recover(self):
        """Finish a move of the work tree that was interrupted."""
        if not self.moving.exists():
            return
        old, new = self.moving.read_text().split()
        (self.dir / '.git/index.lock').unlink(missing_ok=True)
        self.git('read-tree', '--reset', '-u', new)
        self.git('update-ref', 'HEAD', new)
        self.moving.unlink()

    def move(self, new):
        old = self.ref('HEAD')
        if old == new:
            return
        self.moving.write_text(f'{old or new} {new}\n')
        if old:
            self.git('read-tree', '-m', '-u', old, new)
        else:
            self.git('read-tree', '--reset', '-u', new)
        self.git('update-ref', 'HEAD', new)
        self.moving.unlink()

    def edits(self):
        """{path: state letter} of what was edited in the work tree."""
        out = self.git('status', '--porcelain', '-z', '--no-renames', '--untracked-files=all')
        return {e[3:]: e[:2].strip()[0] for e in out.split('\0') if e}

    def refuse_edits(self):
        edits = self.edits() if self.exists() else {}
        if edits:
            raise Error(f'{self.dir} has edits that are not in the series: ' +
                        ', '.join(sorted(edits)[:8]) + (' ...' if len(edits) > 8 else '') +
                        '.\nRun dev/series refresh to take them into the series, '
                        'or dev/series discard to drop them.')

    def checked_series(self):
        """The patches, and the commit of the base."""
        patches = read_series()
        base = self.import_base()
        check_adds(patches, set(self.git('ls-tree', '-d', '--name-only', base).split()))
        return patches, base

    def apply(self):
        self.recover()
        self.refuse_edits()
        patches, base = self.checked_series()
        commits = self.build_commits(patches, base)
        self.move(commits[-1])
        return patches, commits

    # -- taking edits back --------------------------------------------------

    def content(self, commit, path):
        try:
            return run(['git', 'cat-file', 'blob', f'{commit}:{path}'], env=self.env)
        except Error:
            return None

    def diff(self, parent, commit, without):
        """A stable diff: no hashes, which change with every base."""
        text = self.git('diff', '--no-color', '--no-ext-diff', '--no-renames', '-U3',
                        '--src-prefix=a/', '--dst-prefix=b/', '--diff-algorithm=histogram',
                        parent, commit, '--', '.',
                        *(f':(exclude,top,literal){a}' for a in [*without, MAINTAINERS]))
        return re.sub(r'^index [0-9a-f]+\.\.[0-9a-f]+.*\n', '', text, flags=re.M)

    def changed(self, parent, commit):
        """The paths that differ between two commits."""
        return set(self.git('diff', '--name-only', '-z', '--no-renames',
                            parent, commit).split('\0')) - {''}

    def merge(self, ours, base, theirs, path, where):
        """git merge-file on contents."""
        if ours == base:
            return theirs
        with tempfile.TemporaryDirectory() as tmp:
            names = []
            for name, data in (('ours', ours), ('base', base), ('theirs', theirs)):
                names.append(f'{tmp}/{name}')
                Path(names[-1]).write_bytes(data)
            r = subprocess.run(['git', 'merge-file', '-p', '-L', 'build/tree', '-L', 'before',
                                '-L', where.split()[-1], *names],
                               stdout=subprocess.PIPE, check=False)
        if r.returncode:
            hunk = re.search(rb'^<<<<<<< [\s\S]*?^>>>>>>> [^\n]*', r.stdout, re.M)
            line = r.stdout[:hunk.start()].count(b'\n') + 1 if hunk else 0
            raise Error(f'the edit of {path} conflicts {where}, at line {line}:\n' +
                        (hunk[0].decode(errors='replace') if hunk else '') +
                        '\nNothing was changed.  Name another patch, or undo this part of the edit.')
        return r.stdout

    def refresh(self, wanted):
        self.recover()
        if not self.exists():
            raise Error('there is no build/tree yet.\nRun make build first.')
        patches = read_series()
        edits = self.edits()
        base = self.ref('base')
        head = self.ref('HEAD')
        chosen = find_patch(patches, wanted) if wanted else None
        owner = {a: p for p in patches for a in p.adds}

        # The tree must show what the series says now, or an edit could undo a
        # change made in the repository meanwhile.
        commits = self.build_commits(patches, base)
        if commits[-1] != head:
            both = sorted(self.changed(head, commits[-1]) & set(edits))
            if both:
                raise Error(f'{both[0]} was changed both in build/tree and in the repository.\n'
                            'Merge the two by hand in the repository, then run dev/series discard.')

        ours, qemus, new = [], [], []
        for path, state in sorted(edits.items()):
            if path == MAINTAINERS:
                raise Error(f'{path} is made of the base\'s and of {REPO / path}.\n'
                            'Edit that one, then run dev/series discard.')
            if state == 'D':
                raise Error(f'{path} was removed in build/tree; the series cannot take that back.\n'
                            f'Restore it there with "git checkout {path}"; to remove a file '
                            'of ours, remove it and its "Adds:" line in the repository.')
            if path in owner:
                ours.append(path)
            elif state in '?A':
                new.append(path)
            else:
                qemus.append(path)
        if new and not chosen:
            raise Error(f'{new[0]} is new in build/tree, and no patch adds it.\n'
                        'Name the patch that introduces it: dev/series refresh PATCH.')

        # First compute everything, then write.
        target = {}         # patch number -> {path: content}
        for path in qemus:
            touching = [i for i in range(1, len(commits))
                        if path in self.changed(commits[i - 1], commits[i])]
            if chosen:
                number = patches.index(chosen) + 1
            elif touching:
                number = touching[-1]
            else:
                raise Error(f'{path} was edited in build/tree, and no patch touches it.\n'
                            'Name the patch that the edit belongs to: dev/series refresh PATCH.')
            edited = (self.dir / path).read_bytes()
            before = [self.content(c, path) for c in commits]
            if edited == before[-1]:
                raise Error(f'only the permissions of {path} differ, which the series '
                            'cannot take back.\nRun chmod on it in build/tree.')
            where = lambda i: f'with {patches[i - 1].name}'
            after = self.merge(edited, before[-1], before[number], path, where(number))
            target.setdefault(number, {})[path] = after
            for i in range(number + 1, len(commits)):
                after = self.merge(after, before[i - 1], before[i], path, where(i))
                target.setdefault(i, {})[path] = after
            if after != edited:
                raise Error(f'the edit of {path} cannot be moved into {patches[number - 1].name}: '
                            'a later patch changes the same lines.\n'
                            'Nothing was changed.  Name that later patch instead.')

        rewritten = {}
        with tempfile.TemporaryDirectory(dir=self.dir / '.git') as tmp:
            env = {'GIT_INDEX_FILE': tmp + '/index'}
            parent = base
            for i, p in enumerate(patches, 1):
                self.git('read-tree', commits[i], env=env)
                for path, data in target.get(i, {}).items():
                    mode = self.git('ls-tree', commits[i], '--', path).split()[0]
                    self.git('update-index', '--add', '--index-info', env=env,
                             input=f'{mode} {self.store(data)}\t{path}\n')
                commit = self.git('commit-tree', self.git('write-tree', env=env).strip(),
                                  '-p', parent, input=p.message).strip()
                # A patch that does not touch an edited file stays as it is.
                if set(target.get(i, {})) & (self.changed(parent, commit) |
                                             self.changed(commits[i - 1], commits[i])):
                    diff = self.diff(parent, commit, p.adds)
                    if diff != p.diff:
                        rewritten[p] = diff
                parent = commit

        for path in ours + new:
            (REPO / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.dir / path, REPO / path)
            print(f'{path}: copied into the repository')
        if new:
            rewritten.setdefault(chosen, chosen.diff)
        for p, diff in rewritten.items():
            p.write(diff, new if p is chosen else ())
            print(f'series/{p.name}: rewritten')
        if not edits:
            print('build/tree has no edits.')
            return

        # The edited files are already as the new series has them: let the index
        # know, so that moving there writes none of them again.
        patches = read_series()
        commits = self.build_commits(patches, base)
        self.git('add', '--force', '--', *edits)
        self.moving.write_text(f'{head} {commits[-1]}\n')
        self.git('read-tree', '-m', '-u', self.git('write-tree').strip(), commits[-1])
        self.git('update-ref', 'HEAD', commits[-1])
        self.moving.unlink()

    def discard(self):
        self.recover()
        if not self.exists():
            raise Error('there is no build/tree yet.')
        edits = self.edits()
        for path, state in edits.items():
            if state == '?':
                (self.dir / path).unlink()
        self.git('reset', '-q', '--hard', 'HEAD')
        print(f'{len(edits)} edited files in build/tree are as in the series again.')
