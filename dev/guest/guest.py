# SPDX-License-Identifier: GPL-2.0-or-later
"""A small Linux guest: Debian's kernel, busybox, fio, and a shell on a wire.

    initrd = build_initramfs(...)       cached; rebuilt when an input changes
    with Guest(qemu, workdir, kernel, initrd, qemu_args) as g:
        g.boot()
        print(g.run("fio ..."))         a shell script, inside the guest
        print(g.qmp("query-status"))    the QEMU around it
        g.shutdown()

Every wait has a limit; what goes wrong is a GuestError whose text is a sentence.
"""

import base64
import ctypes
import hashlib
import json
import lzma
import os
import re
import select
import shutil
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
BUILD = Path(os.environ.get("QEMU_DMA_BUILD") or TOP / "build").absolute()
WORK = BUILD / "guest"

# Drivers the guest loads, with their options.  The settle times are what a real
# bus needs after a reset; an emulated one needs none.
DRIVERS = {
    "ata_piix": "",
    "ahci": "",
    "sym53c8xx": "settle=0",
    "am53c974": "",
    "virtio_scsi": "",
}
LIBRARIES = {
    "sd_mod": "",
    "sr_mod": "",
    "sg": "",
    "isofs": "",
    "esp_scsi": "esp_bus_reset_settle=0",
}


# After so many seconds without a word a guest is nudged.
SILENCE = 30


class GuestError(Exception):
    """Something that makes the run useless, as a sentence for a person."""


class CommandFailed(GuestError):
    """A command in the guest ended with a status other than 0; the guest lives."""


# --- Kernel, modules, initramfs -------------------------------------------------

def fetch_kernel():
    """Debian's current kernel package, extracted; (vmlinuz, modules directory)."""
    where = WORK / "kernel"
    command = [str(TOP / "dev/fetch-deb"), "--depends", "^linux-image-[0-9]",
               os.environ.get("DEBIAN_SUITE") or "trixie", str(where),
               "linux-image-amd64"]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise GuestError("The guest's kernel could not be fetched; the message "
                         "above says why.")
    kernels = sorted(where.glob("boot/vmlinuz-*"))
    if not kernels:
        raise GuestError(f"There is no kernel in {where}; remove that directory "
                         "and try again.")
    release = kernels[-1].name.removeprefix("vmlinuz-")
    return kernels[-1], where / "usr/lib/modules" / release


def load_modules(directory, wanted):
    """The wanted modules and what they need, as {name: ELF}, in load order."""
    paths = {p.name.split(".")[0].replace("-", "_"): p
             for p in directory.rglob("*.ko*")}
    built_in = {Path(line).stem.replace("-", "_") for line in
                (directory / "modules.builtin").read_text().splitlines()}
    loaded = {}

    def add(name):
        name = name.replace("-", "_")
        if name in loaded or name in built_in:
            return
        if name not in paths:
            raise GuestError(f"The guest kernel in {directory} has no module {name}.")
        data = paths[name].read_bytes()
        if paths[name].suffix == ".xz":
            data = lzma.decompress(data)
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends.group(1).decode().split(",") if depends else ():
            if other:
                add(other)
        loaded[name] = data

    for name in wanted:
        add(name)
    return loaded


def libraries_of(program):
    """The libraries that a host program is linked with: {guest path: host path}."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return {path: path for path in re.findall(r"(/\S+) \(0x", listing)}


def program_files(name):
    """A host program and the libraries it is linked with: {guest path: host path}."""
    program = shutil.which(name)
    if not program:
        raise GuestError(f"{name} is not installed; install the Debian package that "
                         f"has it ({'busybox-static' if name == 'busybox' else name}).")
    return {f"/bin/{name}": program} | libraries_of(program)


def stripped(program, copy):
    """A copy without debugging information: it has to fit into a guest's memory."""
    copy = Path(copy)
    # Whole seconds: strip keeps no more of the time.
    if not copy.exists() or int(copy.stat().st_mtime) != int(os.stat(program).st_mtime):
        copy.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["strip", "-p", "-o", str(copy), str(program)], check=True)
    return str(copy)


class Cpio:
    """Just enough of the "newc" format for the kernel to unpack it."""

    def __init__(self):
        self.out = bytearray()
        self.made = set()

    def entry(self, name, mode, data=b""):
        name = name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        self.out += b"070701" + b"".join(b"%08X" % f for f in fields) + name
        self.out += bytes(-len(self.out) % 4) + data
        self.out += bytes(-len(self.out) % 4)

    def add(self, path, data, mode=0o755):
        parents = path.strip("/").split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            parent = "/".join(parents[:depth])
            if parent not in self.made:
                self.made.add(parent)
                self.entry(parent, stat.S_IFDIR | 0o755)
        self.entry(path.strip("/"), stat.S_IFREG | mode, data)

    def finish(self):
        self.entry("TRAILER!!!", 0)
        return bytes(self.out)


def build_initramfs(name="initramfs", programs=("busybox", "fio"), files=None,
                    drivers=None, on_demand=()):
    """(kernel, initramfs) under build/guest, built only when an input changed.

    files: more files, {guest path: host path}; drivers: modules to load, and their
    options; on_demand: modules that lie in /modules, loaded only as far as another
    one needs them.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    kernel, modules = fetch_kernel()
    drivers = DRIVERS if drivers is None else drivers
    programs = {guest: host for program in programs
                for guest, host in program_files(program).items()} | (files or {})
    key = hashlib.sha256()
    for path in [HERE / "init", HERE / "guest.py"]:
        key.update(path.read_bytes())
    for path in [str(kernel), *programs.values()]:
        about = os.stat(path)
        key.update(f"{path} {about.st_size} {about.st_mtime_ns}\n".encode())
    key.update(repr((sorted(programs), drivers, on_demand)).encode())
    initrd, stamp = WORK / name, WORK / f"{name}.key"
    if (initrd.exists() and stamp.exists()
            and stamp.read_text() == key.hexdigest()):
        return kernel, initrd

    cpio = Cpio()
    # The kernel opens it before /init can mount anything.
    cpio.made.add("dev")
    cpio.entry("dev", stat.S_IFDIR | 0o755)
    cpio.add("/init", (HERE / "init").read_bytes())
    for guest_path, host_path in programs.items():
        cpio.add(guest_path, Path(host_path).read_bytes())
    options = LIBRARIES | drivers
    lists = {"libraries": "", "drivers": ""}
    for module, data in load_modules(modules, [*options, *on_demand]).items():
        cpio.add(f"/modules/{module}.ko", data, 0o644)
        kind = "drivers" if module in drivers else "libraries"
        if module not in on_demand:
            lists[kind] += f"{module} {options.get(module, '')}\n"
    for kind, text in lists.items():
        cpio.add(f"/modules/{kind}", text.encode(), 0o644)

    stamp.unlink(missing_ok=True)
    partial = initrd.with_suffix(".partial")
    partial.write_bytes(cpio.finish())
    partial.replace(initrd)
    stamp.write_text(key.hexdigest())
    return kernel, initrd


# --- Running it -----------------------------------------------------------------

class Wire:
    """One end of a socket whose other end QEMU has: lines, with a time limit."""

    def __init__(self):
        self.socket, self.for_qemu = socket.socketpair()
        self.pending = b""
        self.successor = None       # of the QEMU that goes on where this one ends

    def argument(self, name):
        return ["-chardev", f"socket,id={name},fd={self.for_qemu.fileno()}"]

    def receive(self):
        """What has come; false at the end."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self.pending += data
        if not data and self.successor:
            self.socket, self.successor = self.successor.socket, None
            return True
        return bool(data)

    def send(self, text):
        while self.successor and self.receive():
            pass
        # A stopped QEMU does not read; the wait for its answer then says so.
        self.socket.settimeout(10)
        self.socket.sendall(text.encode() + b"\n")

    def line(self, deadline):
        """The next line; None when the limit is over; EOFError when QEMU is gone."""
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return None
            if not self.receive():
                raise EOFError
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode(errors="replace")


class Guest:
    """One QEMU with the guest in it.  Use as a context manager: leaving kills it."""

    def __init__(self, qemu, kernel, initrd, arguments=(), *, accel="tcg,thread=multi",
                 smp=1, memory="1G", append="", workdir=WORK,
                 say=lambda text: None):
        self.console = Path(workdir) / "console.log"
        self.log = Path(workdir) / "qemu.log"
        self.qmp_wire, self.wire = Wire(), Wire()
        self.process = None
        self.events = []            # of QMP, as far as they came before an answer
        self.number = 0
        # A guest that moves to another QEMU must not leave its input behind.
        self.sending = threading.RLock()
        self.say = say
        # fio's crc32c wants SSE 4.2; more features only make TCG slower.
        cpu = "host" if accel == "kvm" else "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"
        self.command = [
            str(qemu), "-M", "pc", "-accel", accel, "-cpu", cpu, "-smp", str(smp),
            "-m", memory, "-nodefaults", "-display", "none", "-vga", "none",
            "-no-reboot", "-L", str(BUILD / "firmware/usr/share/qemu"),
            "-bios", "qboot.rom", "-kernel", str(kernel), "-initrd", str(initrd),
            # Without huge pages a large buffer is scattered over guest memory,
            # as it is on a machine that has been up for a while.
            "-append", "console=ttyS0 panic=-1 mitigations=off nokaslr "
                       f"transparent_hugepage=never {append}",
            "-chardev", f"file,id=console,path={self.console},append=on",
            "-serial", "chardev:console"]
        self.arguments = arguments

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill()

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def start(self, wire, qmp_wire, arguments):
        command = [*self.command, *wire.argument("wire"), "-serial", "chardev:wire",
                   *qmp_wire.argument("qmp"), "-mon", "chardev=qmp,mode=control", *arguments]
        ends = [wire.for_qemu, qmp_wire.for_qemu]
        with open(self.log, "a") as log:
            log.write(" ".join(command) + "\n")
            log.flush()
            # QEMU must not outlive us, even if we are killed.
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=[end.fileno() for end in ends])
        for end in ends:
            end.close()
        return process

    def boot(self, limit=60):
        self.console.write_text("")
        self.log.write_text("")
        self.process = self.start(self.wire, self.qmp_wire, self.arguments)
        deadline = time.monotonic() + limit
        self.next_line(self.qmp_wire, deadline, f"greet us within {limit} s")
        self.qmp("qmp_capabilities")
        while self.next_line(self.wire, deadline,
                             f"boot its Linux within {limit} s") != "@ready":
            pass

    def next_line(self, wire, deadline, what):
        try:
            while (line := wire.line(min(deadline, time.monotonic() + SILENCE))) is None \
                    and time.monotonic() < deadline:
                self.nudge(wire)
        except EOFError:
            status = self.process.wait()
            how = f"was killed by signal {-status}" if status < 0 else f"ended ({status})"
            raise self.failure(f"QEMU {how} before it could {what}") from None
        if line is None:
            raise self.failure(f"The guest did not {what}")
        return line

    def nudge(self, wire):
        """An empty line, which the guest ignores, but not its serial driver.

        On a busy host a guest has been seen to hang with its serial port idle.
        """
        if wire is self.wire and self.number and self.sending.acquire(blocking=False):
            try:
                self.say(f"(the guest has been silent for {SILENCE} s)")
                self.send(wire, "")
            finally:
                self.sending.release()

    def failure(self, sentence):
        """A GuestError that shows what QEMU and the guest said last."""
        text = sentence + ".\n"
        for title, path in ("QEMU", self.log), ("guest console", self.console):
            lines = path.read_text(errors="replace").splitlines() if path.exists() else []
            lines = lines[1:] if path == self.log else lines
            text += f"--- the last lines of the {title} log, {path}\n"
            text += "".join(f"    {line}\n" for line in lines[-15:] or ["(nothing)"])
        return GuestError(text + "Try again; if it fails at the same place, these logs "
                          "in full, and QEMU's command line at the top of its own, "
                          "are where to look.")

    def run(self, script, limit=60, what="run a command"):
        """The output of a shell script run in the guest; its failure is ours."""
        self.number += 1
        deadline = time.monotonic() + limit
        in_time = f"{what} within {limit} s"
        with self.sending:
            self.send(self.wire, f"{self.number} "
                      + base64.b64encode(script.encode()).decode())
            while self.next_line(self.wire, deadline, f"begin to {in_time}") \
                    != f"@begin {self.number}":
                pass
        output = []
        while True:
            line = self.next_line(self.wire, deadline, in_time)
            if line.startswith(f"@end {self.number} "):
                break
            if line.startswith("@say "):
                self.say(line.removeprefix("@say "))
            else:
                output.append(line)
        text = "\n".join(output).removesuffix("\n")
        status = int(line.split()[2])
        if status:
            raise CommandFailed(f"The guest could not {what}, exit status {status}:\n"
                                + (text.strip()[-1000:] or "it said nothing"))
        return text

    def migrate(self, arguments, limit=60):
        """Go on in another QEMU, with these arguments for its disks.

        The caller holds "sending".  A run() in another thread does not notice.
        """
        wire, qmp_wire = Wire(), Wire()
        channel = self.console.with_name("migration")
        channel.unlink(missing_ok=True)
        deadline = time.monotonic() + limit
        target = self.start(wire, qmp_wire, [*arguments, "-incoming", f"unix:{channel}"])
        try:
            # It answers when it has begun to listen.
            qmp_wire.send(json.dumps({"execute": "qmp_capabilities"}))
            if not qmp_wire.line(deadline) or not qmp_wire.line(deadline):
                raise self.failure(f"The new QEMU did not greet us within {limit} s")
            self.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 40,
                                                  "downtime-limit": 1000})
            self.qmp("migrate", uri=f"unix:{channel}")
            while (status := self.qmp("query-migrate").get("status")) != "completed":
                if status == "failed" or time.monotonic() > deadline:
                    raise self.failure(f"The guest did not move to another QEMU: {status}")
                time.sleep(0.05)
            # What the old one has said is read before what the new one says.
            self.wire.successor = wire
            self.shutdown()
        except EOFError:
            raise self.failure(f"The new QEMU ended ({target.wait()})") from None
        except BaseException:
            target.kill()
            target.wait()
            raise
        self.process, self.qmp_wire = target, qmp_wire

    def send(self, wire, text):
        try:
            wire.send(text)
        except OSError as error:
            raise self.failure(f"QEMU does not listen to us ({error})") from None

    def qmp(self, name, limit=30, **arguments):
        """The answer to a QMP command; KeyError if this QEMU does not have it."""
        self.send(self.qmp_wire, json.dumps({"execute": name, "arguments": arguments}))
        deadline = time.monotonic() + limit
        while True:
            answer = json.loads(self.next_line(
                self.qmp_wire, deadline, f"answer the QMP command {name} in {limit} s"))
            if "event" in answer:
                self.events.append(answer)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                if answer["error"]["class"] == "CommandNotFound":
                    raise KeyError(name)
                raise self.failure(f"QEMU refused the QMP command {name}: "
                                   + answer["error"]["desc"])

    def shutdown(self, limit=30):
        """Ask QEMU to end, so that it flushes and closes the images."""
        self.qmp("quit")
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise self.failure(f"QEMU did not end within {limit} s") from None
        if status:
            raise self.failure(f"QEMU ended with status {status}")


def kvm_works(qemu, kernel, initrd, say=lambda text: None):
    """Does a guest really boot under KVM here?  Asked once after each host boot.

    /dev/kvm can exist, and be opened, and still not run a guest.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    cache = WORK / "kvm"
    host = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if not cache.exists() or not cache.read_text().startswith(host):
        say("seeing whether a guest boots under KVM (once)")
        (WORK / "kvm-probe").mkdir(exist_ok=True)
        try:
            with Guest(qemu, kernel, initrd, accel="kvm",
                       workdir=WORK / "kvm-probe") as probe:
                probe.boot(limit=10)
            cache.write_text(f"{host} yes\n")
        except GuestError:
            cache.write_text(f"{host} no\n")
    return cache.read_text() == f"{host} yes\n"


def host_aio():
    """The fastest of QEMU's aio= modes that this host's kernel allows."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name, number, arguments in (
            ("io_uring", 425, (1, ctypes.create_string_buffer(256))),
            ("native", 206, (1, ctypes.byref(ctypes.c_ulong(0))))):
        handle = libc.syscall(ctypes.c_long(number), *arguments)
        if handle >= 0:
            if name == "io_uring":
                os.close(handle)
            return name
    return "threads"


def direct_io_works(directory):
    """Can files in this directory be opened with O_DIRECT (cache=none)?"""
    path = Path(directory) / "direct-io-probe"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT))
        return True
    except OSError:
        return False
    finally:
        path.unlink(missing_ok=True)
