# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults under a Linux guest's feet, while fio verifies what it writes.

The guest must not notice: drives stop the machine at an error (rerror, werror), and it
goes on when the error is over.  So fio may not see one error, and not one wrong byte;
at the end the host verifies the images as well, whichever they are by then.
"""

import json
import os
import random
import shlex
import subprocess
import threading
import time

import devices
import guest
from guest import Guest, GuestError

MIB = 1 << 20
SIZE = 8 * MIB
BLOCK = "16k"
FIO = ["fio", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
       "--do_verify=0", "--gtod_reduce=1", f"--bs={BLOCK}", f"--size={SIZE}"]


class Disk:
    """A device of the guest, and the nodes and the file that are its disk now."""

    def __init__(self, device, number):
        self.device = device
        self.generation = 0
        self.qdev = f"qdev{number}"
        self.name = device.name

    @property
    def node(self):
        return f"{self.name}-{self.generation}"

    @property
    def file(self):
        return f"{self.node}-file"

    @property
    def image(self):
        return guest.WORK / f"faults-{self.node}.img"


class Campaign:
    def __init__(self, options, say):
        self.say = say
        self.random = random.Random(options.seed)
        self.count = options.guest
        self.limit = 120
        self.qemu = options.qemu
        self.disks = [Disk(device, number) for number, device in enumerate(devices.DEVICES)
                      if device.name in options.devices]
        self.cache = ({"direct": True}, guest.host_aio())
        if not guest.direct_io_works(guest.WORK):
            self.cache = ({"direct": False}, "threads")
        self.done = {disk.name: {} for disk in self.disks}
        self.problems = []
        self.passes = 0
        self.stop = False
        self.machine = None

    # --- The load, in a thread of its own ------------------------------------------

    def fio(self, rw, disks):
        words = FIO + ["--direct=1", "--ioengine=libaio", "--iodepth=8", f"--rw={rw}"]
        for disk in disks:
            words += [f"--name={disk.name}", f"--filename={disk.guest_node}"]
        self.machine.run(shlex.join(words) + " > /tmp/fio 2>&1 || { tail -n 30 /tmp/fio; exit 1; }",
                         self.limit, f"{rw} and verify")

    def load(self):
        try:
            while not self.stop or not self.passes:
                self.fio("write", [disk for disk in self.disks if disk.device.writable])
                self.fio("read", self.disks)
                self.passes += 1
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

    def throttle(self, disk):
        zero = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
        limits = {"bps": self.random.choice([0, 4 * MIB]), "iops": self.random.choice([0, 200])}
        self.machine.qmp("block_set_io_throttle", id=disk.qdev, **{**zero, **limits})
        self.pause()
        self.machine.qmp("block_set_io_throttle", id=disk.qdev, **zero)

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

    def fire(self):
        kinds = ["read_error", "throttle", "stop_cont"]
        writing = kinds + ["write_error", "disk_full", "mirror", "snapshot"]
        while not self.problems:
            todo = [disk for disk in self.disks
                    if sum(self.done[disk.name].values()) < self.count]
            if not todo:
                return
            disk = self.random.choice(todo)
            kind = self.random.choice(writing if disk.device.writable else kinds)
            self.pause()
            getattr(self, kind)(disk)
            self.done[disk.name][kind] = self.done[disk.name].get(kind, 0) + 1

    # --- The run -------------------------------------------------------------------

    def host_fio(self, disk, rw):
        command = [*FIO, "--ioengine=psync", f"--rw={rw}", f"--name={disk.name}",
                   f"--filename={disk.image}"]
        done = subprocess.run(command, cwd=guest.WORK, capture_output=True, text=True,
                              timeout=self.limit, check=False)
        if done.returncode:
            self.problems.append(f"{disk.name}: the host's fio ({rw}): "
                                 + (done.stderr + done.stdout).strip()[-500:])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.machine.process.pid}/fd"))

    def run(self):
        kernel, initrd = guest.build_initramfs()
        direct, aio = self.cache
        words = []
        for controller in dict.fromkeys(disk.device.controller for disk in self.disks):
            words += controller.split()
        for disk in self.disks:
            with open(disk.image, "wb") as image:
                image.truncate(SIZE)
            if not disk.device.writable:
                self.host_fio(disk, "write")
            words += ["-blockdev", json.dumps({"driver": "file", "node-name": disk.file,
                                               "filename": str(disk.image), "cache": direct,
                                               "aio": aio}),
                      "-blockdev", json.dumps({"driver": "raw", "node-name": disk.node, "file": {
                          "driver": "blkdebug", "image": disk.file}})]
            words += (disk.device.arguments.format(drive=disk.node)
                      + f",id={disk.qdev},rerror=stop,werror=stop").split()
        try:
            with Guest(self.qemu, kernel, initrd, words, say=self.say) as self.machine:
                self.machine.boot(self.limit)
                for disk in self.disks:
                    disk.guest_node = "/dev/" + devices.find(self.machine, disk.device,
                                                             self.limit)
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
                self.host_fio(disk, "read")
            disk.image.unlink(missing_ok=True)


def campaign(options, say):
    """Run it; {"devices": {device: {kind: count}}, "passes": N, "problems": [...]}"""
    guest.WORK.mkdir(parents=True, exist_ok=True)
    run = Campaign(options, say)
    started = time.monotonic()
    say(f"\na Linux guest, {run.count} faults for each device")
    run.run()
    for name, kinds in run.done.items():
        say(f"guest {name:11s} " + ", ".join(f"{count} {kind}" for kind, count in
                                             sorted(kinds.items())))
    say(f"guest: each disk was written, read and verified {run.passes} times, "
        f"{SIZE // MIB} MiB each, in {time.monotonic() - started:.0f} s")
    for problem in run.problems:
        say(f"FAILED: {problem}")
    return {"devices": run.done, "passes": run.passes, "problems": run.problems}
