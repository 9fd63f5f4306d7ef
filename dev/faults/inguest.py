# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults under a Linux guest's feet, while fio verifies what it writes.

The guest must not notice: drives stop the machine at an error (rerror, werror), and it
goes on when the error is over.  So fio may not see one error, and not one wrong byte.
Only of a disk that is unplugged, and of a CD that is ejected, it sees errors; then the
host looks whether all that fio was told is written is in the image, and gives it back.

Each block says where it belongs and which pass over the disks wrote it: a write that is
lost leaves the block of an earlier pass.  At the end the host verifies the images as
well, whichever they are by then.
"""

import json
import os
import random
import shlex
import struct
import threading
import time

import devices
import guest
from guest import Guest, GuestError

MIB = 1 << 20
SIZE = 8 * MIB
BLOCK = 16 << 10
FIO = ["fio", "--direct=1", "--ioengine=libaio", "--iodepth=8", f"--bs={BLOCK}",
       f"--size={SIZE}", "--allow_file_create=0", "--verify=pattern", "--verify_fatal=1",
       "--verify_state_save=0", "--do_verify=0", "--log_offset=1", "--disable_clat=1",
       "--disable_slat=1"]
# A disk that is gone is given up soon.
TIMEOUT = 5
# virtio-scsi works in the first of them.
THREADS = "thread0", "thread1"


def pattern(number, offset):
    """What fio's verify_pattern is for a block of this pass"""
    unit = struct.pack(">I", number) + struct.pack("<Q", offset)
    return (unit * (BLOCK // len(unit) + 1))[:BLOCK]


class Disk:
    """A device of the guest, and the nodes and the file that are its disk now."""

    def __init__(self, device, number):
        self.device = device
        self.generation = 0
        self.qdev = f"qdev{number}"
        self.name = device.name
        self.gone = None            # a Gone, while it is unplugged or ejected

    @property
    def node(self):
        return f"{self.name}-{self.generation}"

    @property
    def file(self):
        return f"{self.node}-file"

    @property
    def image(self):
        return guest.WORK / f"faults-{self.node}.img"


class Gone:
    """A disk that is not there: who waits for what"""

    def __init__(self):
        self.noticed = threading.Event()    # by the guest, and the image was compared
        self.back = threading.Event()
        self.found = threading.Event()      # by the guest


class Campaign:
    def __init__(self, options, say):
        self.say = say
        self.random = random.Random(options.seed)
        self.count = options.guest
        # An idle guest takes half a minute to give up an LSI disk that is gone.
        self.limit = 240
        self.qemu = options.qemu
        self.disks = [Disk(device, number) for number, device in enumerate(devices.DEVICES)
                      if device.name in options.devices]
        self.cache = ({"direct": True}, guest.host_aio())
        if not guest.direct_io_works(guest.WORK):
            self.cache = ({"direct": False}, "threads")
        self.done = {disk.name: {} for disk in self.disks}
        self.problems = []
        self.passes = 0
        self.acknowledged = 0       # blocks, written in passes that a disk's removal ended
        self.stop = False
        self.machine = None

    # --- The load, in a thread of its own ------------------------------------------

    def fio(self, rw, disks, number):
        """One pass over these disks; those whose fio failed."""
        script = "rm -f /tmp/*.fio /tmp/*.log /tmp/*.failed\n"
        for disk in disks:
            words = [*FIO, f"--rw={rw}", f"--name={disk.name}", f"--filename={disk.guest_node}",
                     f"--verify_pattern=0x{number if disk.device.writable else 0:08x}%o",
                     f"--write_lat_log=/tmp/{disk.name}"]
            script += (f"{{ {shlex.join(words)} > /tmp/{disk.name}.fio 2>&1 "
                       f"|| echo {disk.name} > /tmp/{disk.name}.failed; }} &\n")
        script += "wait; cat /tmp/*.failed 2>/dev/null; :"
        failed = self.machine.run(script, self.limit, f"{rw} and verify").split()
        return [disk for disk in disks if disk.name in failed]

    def offsets_written(self, disk):
        """Those of what fio was told is written"""
        # time, value, direction, size, offset, priority
        text = self.machine.run(f"cat /tmp/{disk.name}_lat.1.log 2>/dev/null; :", self.limit,
                                "read fio's log")
        return [int(line.split(",")[4]) for line in text.splitlines() if line]

    def compare(self, disk, offsets, number):
        """All these blocks of the image are of this pass"""
        lost = []
        with open(disk.image, "rb") as image:
            for offset in offsets:
                image.seek(offset)
                if image.read(BLOCK) != pattern(number, offset):
                    lost.append(offset)
        if lost:
            self.problems.append(f"{disk.name}: {len(lost)} of {len(offsets)} blocks that were "
                                 f"acknowledged are not those of pass {number}: {lost[:8]}")

    def phase(self, rw, disks, number):
        """Errors are only seen on disks that are gone; they are done once more then."""
        while disks:
            disks = self.fio(rw, disks, number)
            for disk in disks:
                if not disk.gone:
                    text = self.machine.run(f"tail -n 30 /tmp/{disk.name}.fio; dmesg | tail -n 20",
                                            self.limit, "read what fio said")
                    raise GuestError(f"{disk.name}: fio failed to {rw}:\n{text}")
                offsets = range(0, SIZE, BLOCK)
                if rw == "write":
                    offsets = self.offsets_written(disk)
                    self.acknowledged += len(offsets)
                self.compare(disk, offsets, number if disk.device.writable else 0)
                disk.gone.noticed.set()
                self.until(disk.gone.back.is_set, lambda: time.sleep(0.1),
                           f"{disk.name} is gone, and not given back")
                self.find(disk, again=True)
                disk.gone, gone = None, disk.gone
                gone.found.set()

    def find(self, disk, again=False):
        if again and disk.device.writable:
            self.machine.run(
                f"echo 1 > /sys/block/{os.path.basename(disk.guest_node)}/device/delete; "
                f"for scan in $(find /sys/devices/pci0000:00/0000:00:{disk.device.address}/ "
                "-path '*/scsi_host/host*/scan'); do echo '- - -' > $scan; done", self.limit,
                "look for the disk that is back")
        name = devices.find(self.machine, disk.device, self.limit)
        self.machine.run(f"echo {TIMEOUT} > /sys/block/{name}/device/timeout", self.limit,
                         "set the timeout")
        disk.guest_node = f"/dev/{name}"

    def until(self, condition, meanwhile, problem):
        """Both threads wait for the other one, for QEMU and for the guest with this."""
        deadline = time.monotonic() + self.limit
        while not condition():
            if self.problems:
                raise GuestError("the campaign has ended")
            if time.monotonic() > deadline:
                raise GuestError(problem)
            meanwhile()

    def load(self):
        try:
            last = False
            while not last:
                # Nothing is fired any more: all of the last pass is there.
                last = self.stop
                number = self.passes + 1
                self.phase("write", [disk for disk in self.disks if disk.device.writable], number)
                self.phase("read", self.disks, number)
                self.passes = number
        except GuestError as error:
            self.problems.append(str(error))

    # --- Faults --------------------------------------------------------------------

    def qmp(self, name, **arguments):
        return self.machine.qmp(name, **{key.replace("_", "-"): value
                                         for key, value in arguments.items()})

    def pause(self):
        time.sleep(self.random.uniform(0, 0.2))

    def add_disk(self, disk, node, file, image):
        direct, aio = self.cache
        self.qmp("blockdev-add", driver="file", node_name=file, filename=str(image),
                 cache=direct, aio=aio)
        self.qmp("blockdev-add", driver="raw", node_name=node,
                 file={"driver": "blkdebug", "image": file})

    def error(self, disk, write, errno):
        nth = self.random.randrange(1, 9)
        event = "write_aio" if write else "read_aio"
        states = [{"event": event, "state": state, "new_state": state + 1}
                  for state in range(1, nth)]
        # An empty list is not accepted.
        self.qmp("blockdev-add", driver="raw", node_name="faulty", file={
            "driver": "blkdebug", "image": disk.file, "inject-error": [
                {"event": event, "state": nth, "iotype": "write" if write else "read",
                 "errno": errno, "once": True}], **({"set-state": states} if states else {})})
        path = f"/machine/peripheral/{disk.qdev}"
        self.qmp("qom-set", path=path, property="drive", value="faulty")
        self.pause()
        self.go_on()
        self.qmp("qom-set", path=path, property="drive", value=disk.node)
        self.qmp("blockdev-del", node_name="faulty")
        self.go_on()

    def go_on(self):
        """The machine has stopped at the error, or will before long, or never."""
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            if not self.qmp("query-status")["running"]:
                self.qmp("cont")
                return
            time.sleep(0.01)

    def read_error(self, disk):
        self.error(disk, False, 5)

    def write_error(self, disk):
        self.error(disk, True, 5)

    def disk_full(self, disk):
        self.error(disk, True, 28)

    def limit_rate(self, disk, **limits):
        zero = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
        self.machine.qmp("block_set_io_throttle", id=disk.qdev, **{**zero, **limits})

    def throttle(self, disk):
        self.limit_rate(disk, bps=self.random.choice([0, 4 * MIB]),
                        iops=self.random.choice([0, 200]))
        self.pause()
        self.limit_rate(disk)

    def stop_cont(self, disk):
        self.qmp("stop")
        self.pause()
        self.qmp("cont")

    def complete(self):
        deadline = time.monotonic() + self.limit
        asked = False
        while True:
            jobs = self.qmp("query-block-jobs")
            if not jobs:
                return
            if jobs[0]["ready"] and not asked:
                self.pause()
                self.qmp("block-job-complete", device="job")
                asked = True
            if time.monotonic() > deadline:
                raise GuestError(f"a block job does not end: {jobs}")
            time.sleep(0.02)

    def mirror(self, disk):
        old = disk.node, disk.file, disk.image
        disk.generation += 1
        with open(disk.image, "wb") as image:
            image.truncate(SIZE)
        self.add_disk(disk, disk.node, disk.file, disk.image)
        self.qmp("blockdev-mirror", job_id="job", device=old[0], target=disk.node,
                 sync="full", copy_mode=self.random.choice(["background", "write-blocking"]))
        self.complete()
        self.qmp("blockdev-del", node_name=old[0])
        self.qmp("blockdev-del", node_name=old[1])
        old[2].unlink()

    def snapshot(self, disk):
        overlay = guest.WORK / "faults-overlay.qcow2"
        overlay.unlink(missing_ok=True)
        self.qmp("blockdev-snapshot-sync", node_name=disk.node, snapshot_file=str(overlay),
                 format="qcow2", snapshot_node_name="overlay")
        self.pause()
        self.qmp("block-commit", job_id="job", device="overlay")
        self.complete()
        overlay.unlink()

    def migrate(self, disk):
        while not self.machine.sending.acquire(timeout=0.1):
            self.go_on()
        try:
            self.machine.migrate(self.arguments(), self.limit)
        finally:
            self.machine.sending.release()
        self.go_on()

    def give_back(self, disk, how):
        """The guest has noticed that the disk is gone: let it find it again."""
        gone = disk.gone            # which the other thread clears
        self.until(gone.noticed.is_set, self.go_on,
                   f"{disk.name} is gone, and the guest does not notice")
        how()
        gone.back.set()
        self.until(gone.found.is_set, self.go_on,
                   f"{disk.name} is back, and the guest does not notice")

    def unplug(self, disk, thread=None):
        # So slow that it is likely to be at work
        self.limit_rate(disk, bps=MIB)
        time.sleep(self.random.uniform(0, SIZE / MIB))
        disk.gone = Gone()
        self.machine.events.clear()
        self.qmp("device_del", id=disk.qdev)
        self.until(lambda: any(event["event"] == "DEVICE_DELETED"
                               and event["data"].get("device") == disk.qdev
                               for event in self.machine.events), self.go_on,
                   f"{disk.name} cannot be unplugged")
        if thread:
            self.qmp("x-blockdev-set-iothread", node_name=disk.node, iothread=thread)
        options = dict(word.split("=") for word in f"driver={self.device(disk)}".split(","))
        self.give_back(disk, lambda: self.machine.qmp("device_add", **options))

    def move_thread(self, disk):
        """Between its two users the disk's node goes to another thread, and back."""
        self.unplug(disk, self.random.choice(THREADS))

    def eject(self, disk):
        disk.gone = Gone()
        self.qmp("blockdev-open-tray", id=disk.qdev, force=True)
        self.qmp("blockdev-remove-medium", id=disk.qdev)

        def insert():
            # Linux closes it when a program opens the device.
            self.qmp("blockdev-open-tray", id=disk.qdev, force=True)
            self.qmp("blockdev-insert-medium", id=disk.qdev, node_name=disk.node)
            self.qmp("blockdev-close-tray", id=disk.qdev)
        self.give_back(disk, insert)

    def fire(self):
        kinds = ["read_error", "throttle", "stop_cont", "migrate"]
        writing = kinds + ["write_error", "disk_full", "mirror", "snapshot"]
        # IDE disks cannot be unplugged.
        more = {"lsi": ["unplug"], "esp": ["unplug"], "virtio-scsi": ["unplug", "move_thread"],
                "atapi": ["eject"], "ahci-cd": ["eject"]}
        while not self.problems:
            todo = [disk for disk in self.disks
                    if sum(self.done[disk.name].values()) < self.count]
            if not todo:
                return
            disk = self.random.choice(todo)
            kind = self.random.choice((writing if disk.device.writable else kinds)
                                      + more.get(disk.name, []))
            self.pause()
            getattr(self, kind)(disk)
            self.done[disk.name][kind] = self.done[disk.name].get(kind, 0) + 1

    # --- The run -------------------------------------------------------------------

    def device(self, disk):
        """device_add's arguments, as on a command line"""
        _, text = disk.device.arguments.format(drive=disk.node).split()
        return f"{text},id={disk.qdev},rerror=stop,werror=stop"

    def arguments(self):
        direct, aio = self.cache
        words = []
        for thread in THREADS:
            words += ["-object", f"iothread,id={thread}"]
        for controller in dict.fromkeys(disk.device.controller for disk in self.disks):
            words += controller.replace("virtio-scsi-pci",
                                        f"virtio-scsi-pci,iothread={THREADS[0]}").split()
        for disk in self.disks:
            words += ["-blockdev", json.dumps({"driver": "file", "node-name": disk.file,
                                               "filename": str(disk.image), "cache": direct,
                                               "aio": aio}),
                      "-blockdev", json.dumps({"driver": "raw", "node-name": disk.node, "file": {
                          "driver": "blkdebug", "image": disk.file}}),
                      "-device", self.device(disk)]
        return words

    def descriptors(self):
        """How many; a thread has a ring from the first time that it works on a disk."""
        count = 0
        for descriptor in os.scandir(f"/proc/{self.machine.process.pid}/fd"):
            try:
                count += "io_uring" not in os.readlink(descriptor.path)
            except FileNotFoundError:
                pass
        return count

    def run(self):
        kernel, initrd = guest.build_initramfs()
        for disk in self.disks:
            with open(disk.image, "wb") as image:
                for offset in range(0, SIZE, BLOCK):
                    image.write(pattern(0, offset))
        try:
            with Guest(self.qemu, kernel, initrd, self.arguments(),
                       say=self.say) as self.machine:
                self.machine.boot(self.limit)
                for disk in self.disks:
                    self.find(disk)
                thread = threading.Thread(target=self.load)
                before = self.descriptors()
                thread.start()
                try:
                    self.fire()
                finally:
                    self.stop = True
                    thread.join(2 * self.limit)
                deadline = time.monotonic() + 10
                # The thread pool's threads, and what they hold, go when they are idle.
                while self.descriptors() > before and time.monotonic() < deadline:
                    time.sleep(0.5)
                if self.descriptors() > before:
                    self.problems.append(f"{before} descriptors were open, "
                                         f"now {self.descriptors()}")
                self.machine.shutdown()
        except GuestError as error:
            self.problems.append(str(error))
        for disk in self.disks:
            if not self.problems:
                self.compare(disk, range(0, SIZE, BLOCK),
                             self.passes if disk.device.writable else 0)
            disk.image.unlink(missing_ok=True)


def campaign(options, say):
    """Run it; {"devices": {device: {kind: count}}, "passes": N, ..., "problems": [...]}"""
    guest.WORK.mkdir(parents=True, exist_ok=True)
    run = Campaign(options, say)
    started = time.monotonic()
    say(f"\na Linux guest, {run.count} faults for each device")
    run.run()
    for name, kinds in run.done.items():
        say(f"guest {name:11s} " + ", ".join(f"{count} {kind}" for kind, count in
                                             sorted(kinds.items())))
    say(f"guest: each disk was written, read and verified {run.passes} times, "
        f"{SIZE // MIB} MiB each, in {time.monotonic() - started:.0f} s; "
        f"{run.acknowledged} blocks were acknowledged before their disk was gone")
    for problem in run.problems:
        say(f"FAILED: {problem}")
    return {"devices": run.done, "passes": run.passes, "acknowledged": run.acknowledged,
            "problems": run.problems}
