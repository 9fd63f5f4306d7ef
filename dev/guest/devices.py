# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks and CDs that a guest can have, and how Linux finds them there."""

from dataclasses import dataclass


@dataclass
class Device:
    name: str
    label: str
    address: str            # where Linux finds the controller: PCI slot.function
    arguments: str          # for QEMU; {drive} is the disk
    controller: str = ""    # the same for all its disks
    writable: bool = True
    direct: bool = False    # its data must not be bounced
    segment: str = ""       # direct if a request is one segment; Linux's are this long


AHCI = "-device ich9-ahci,id=ahci,addr=4"

DEVICES = [
    Device("ide", "IDE disk (piix3)", "01.1",
           "-device ide-hd,bus=ide.0,drive={drive}", direct=True),
    Device("atapi", "ATAPI CD (piix3)", "01.1",
           "-device ide-cd,bus=ide.1,drive={drive}", writable=False, direct=True),
    Device("ahci", "AHCI disk (ich9)", "04.0",
           "-device ide-hd,bus=ahci.0,drive={drive}", AHCI, direct=True),
    Device("ahci-cd", "AHCI CD (ich9)", "04.0",
           "-device ide-cd,bus=ahci.1,drive={drive}", AHCI, writable=False,
           direct=True),
    Device("lsi", "LSI 53C895A", "05.0",
           "-device scsi-hd,bus=lsi.0,drive={drive}",
           "-device lsi53c895a,id=lsi,addr=5", direct=True),
    Device("esp", "AM53C974 (ESP)", "06.0",
           "-device scsi-hd,bus=esp.0,drive={drive}",
           "-device am53c974,id=esp,addr=6", segment="64k"),
    Device("virtio-scsi", "virtio-scsi", "07.0",
           "-device scsi-hd,bus=vscsi.0,drive={drive}",
           "-device virtio-scsi-pci,id=vscsi,addr=7", direct=True),
]


def arguments(devices, drive):
    """QEMU's, for these devices; drive(device) has the options of its image."""
    words = []
    for controller in dict.fromkeys(device.controller for device in devices):
        words += controller.split()
    for device in devices:
        words += ["-drive", f"if=none,id={device.name},format=raw,{drive(device)}"
                  + ("" if device.writable else ",readonly=on")]
        words += device.arguments.format(drive=device.name).split()
    return words


def find(machine, device, limit):
    """The name of the device's node under the guest's /dev."""
    kind = "sd*" if device.writable else "sr*"
    return machine.run(
        # Linux looks for disks in the background: the last may take a moment.
        f"for i in $(seq {limit}); do\n"
        f"  d=$(find /sys/devices/pci0000:00/0000:00:{device.address}/ "
        f"-path '*/block/{kind}' -prune -exec basename {{}} ';')\n"
        "  [ -b /dev/$d ] && [ -n \"$d\" ] && echo $d && exit\n"
        "  sleep 1\n"
        "done; echo Linux found no disk there; exit 1", limit + 10,
        f"find the disk at PCI address {device.address} ({device.label})").strip()
