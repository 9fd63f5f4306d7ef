# SPDX-License-Identifier: GPL-2.0-or-later
"""The inputs that the fuzzers start from: one working command each.

QEMU's generic fuzzer (tests/qtest/fuzz/generic_fuzz.c) takes its input for a list
of operations, with "FUZZ" between them.  A register is named by the index of its
memory region, among those that are fuzzed and in the order of their addresses, and
an offset.  Guest memory is not written: what a device reads from RAM is filled when
it reads it, each range with the next of the patterns that have been given.

By chance alone a fuzzer does not come to a transfer: a table of descriptors, a
command, and a register that starts it have to agree.  From a transfer that works
it gets to others.
"""

import struct

SEPARATOR = b'FUZZ'
BYTE, WORD, LONG, QUAD = range(4)
# Guest memory that nothing else is in
RAM = 0x100000
# Nothing is there: accesses are MMIO, whose bounce buffers come from the pool.
HOLE = 0x40000000


class Program:
    """Operations, in the order in which they are made"""

    def __init__(self, big_endian=False):
        self.operations = []
        self.big_endian = big_endian

    def add(self, code, layout='', *values):
        self.operations.append(bytes([code]) + struct.pack('<' + layout, *values))
        return self

    def value(self, size, value):
        """In the fuzzer's byte order, which is that of the host"""
        n = 1 << size
        return int.from_bytes(value.to_bytes(n, 'big'), 'little') if self.big_endian else value

    def inp(self, size, region, offset=0):
        return self.add(0, 'BBH', size, region, offset)

    def out(self, size, region, offset, value):
        return self.add(1, 'BBHI', size, region, offset, value)

    def read(self, size, region, offset):
        return self.add(2, 'BBxxI', size, region, offset)

    def write(self, size, region, offset, value):
        return self.add(3, 'BBxxIQ', size, region, offset, self.value(size, value))

    def memory(self, *patterns):
        """What the next reads of guest memory find, one pattern each"""
        self.add(8)
        for pattern in patterns:
            self.add(7, 'BB', 0, 0)
            self.operations[-1] += pattern
        return self

    def wait(self, times=1):
        """Until the next timer, so many times"""
        for _ in range(times):
            self.add(9)
        return self

    def bytes(self):
        return SEPARATOR.join(self.operations)


def words(*values):
    return struct.pack(f'<{len(values)}I', *values)


def cdb10(opcode, lba, blocks):
    return struct.pack('>BBIBHB', opcode, 0, lba, 0, blocks, 0)


READ_10, WRITE_10 = 0x28, 0x2a
# The first command after a reset only hears of it: UNIT ATTENTION (SAM-5, 5.14).
ATTEMPTS = 2


def lists(total):
    """(name, [(address, length)]) of scatter lists with so many bytes in all"""
    third = total // 3 | 1
    return [('one', [(RAM, total)]),
            ('scattered', [(RAM + 0x1000 * (9 - i), total // 8) for i in range(8)]),
            ('odd', [(RAM + 1, third), (RAM + 0x5003, third), (RAM + 0x9000, total - 2 * third)]),
            ('mmio', [(RAM, 100), (HOLE, total - 100)]),
            ('overlap', [(RAM, total // 2), (RAM + total // 4, total - total // 2)])]


# --- IDE, bus master --------------------------------------------------------------

# Regions of piix3-ide: the two channels, their control ports, and of each
# channel's bus master the command and status, and the table's address.
IDE, BMDMA, BMDMA_TABLE = 1, 4, 5
READ_DMA, WRITE_DMA, READ_DMA_EXT, PACKET = 0xc8, 0xca, 0x25, 0xa0


def prd_table(entries):
    """SFF-8038i: address, length, and a mark on the last one"""
    return b''.join(words(addr, length & 0xffff | (1 << 31 if i == len(entries) - 1 else 0))
                    for i, (addr, length) in enumerate(entries))


def ide_task_file(p, drive, count, lba, command):
    p.out(BYTE, IDE, 6, 0xe0 | drive << 4).out(BYTE, IDE, 2, count)
    for i in range(3):
        p.out(BYTE, IDE, 3 + i, lba >> 8 * i & 0xff)
    return p.out(BYTE, IDE, 7, command)


def ide_begin(entries, write):
    p = Program().memory(prd_table(entries))
    p.out(LONG, BMDMA_TABLE, 0, 0x8000)
    return p.out(BYTE, BMDMA, 0, 0 if write else 8)


def ide_end(p, write):
    return p.out(BYTE, BMDMA, 0, 1 if write else 9).wait(2).inp(BYTE, BMDMA, 2).inp(BYTE, IDE, 7)


def ide_disk():
    for drive in 0, 1:
        for name, entries in lists(8192):
            for write in False, True:
                p = ide_begin(entries, write)
                ide_task_file(p, drive, 16, 8, WRITE_DMA if write else READ_DMA)
                yield f'{name}-{drive}-{"write" if write else "read"}', ide_end(p, write)


def ide_cd():
    for drive in 0, 1:
        for name, entries in lists(8192):
            p = ide_begin(entries, False)
            p.out(BYTE, IDE, 1, 1)
            ide_task_file(p, drive, 0, 0, PACKET)
            packet = cdb10(READ_10, 4, 4).ljust(12, b'\0')
            for i in range(0, 12, 2):
                p.out(WORD, IDE, 0, int.from_bytes(packet[i:i + 2], 'little'))
            yield f'{name}-{drive}', ide_end(p, False)


# --- AHCI -------------------------------------------------------------------------

AHCI = 0
GHC, PORTS, PORT_SIZE = 0x04, 0x100, 0x80
PORT_CLB, PORT_FB, PORT_CMD, PORT_CI = 0x00, 0x08, 0x18, 0x38


def ahci(port, fis, entries, write, packet=b''):
    """AHCI 1.3.1, 4.2: a command header, and a table with FIS, packet and PRDs"""
    header = words(5 | (1 << 6 if write else 0) | (1 << 5 if packet else 0) | len(entries) << 16,
                   0, 0x20000, 0)
    table = fis.ljust(0x40, b'\0') + packet.ljust(0x40, b'\0')
    prds = b''.join(words(addr, 0, 0, length - 1) for addr, length in entries)
    base = PORTS + port * PORT_SIZE
    p = Program().memory(header.ljust(32, b'\0'))
    p.write(LONG, AHCI, GHC, 1 << 31).write(LONG, AHCI, base + PORT_CLB, 0x10000)
    p.write(LONG, AHCI, base + PORT_FB, 0x11000).write(LONG, AHCI, base + PORT_CMD, 0x11)
    p.memory(table, prds).write(LONG, AHCI, base + PORT_CI, 1).wait(3)
    return p.read(LONG, AHCI, base + PORT_CI).read(LONG, AHCI, base + 0x10)


def ahci_disk():
    for port in 0, 1:
        for name, entries in lists(8192):
            for write in False, True:
                fis = bytes([0x27, 0x80, 0x35 if write else READ_DMA_EXT, 0,
                             8, 0, 0, 0x40, 0, 0, 0, 0, 16])
                yield (f'{name}-{port}-{"write" if write else "read"}',
                       ahci(port, fis, entries, write))
    ncq = bytes([0x27, 0x80, 0x60, 16, 8, 0, 0, 0x40, 0, 0, 0, 0, 0])
    p = ahci(0, ncq, lists(8192)[1][1], False)
    yield 'ncq', p


def ahci_cd():
    for port in 0, 1:
        for name, entries in lists(8192):
            fis = bytes([0x27, 0x80, PACKET, 1])
            yield f'{name}-{port}', ahci(port, fis, entries, False,
                                         cdb10(READ_10, 4, 4).ljust(12, b'\0'))


# --- LSI 53C895A ------------------------------------------------------------------

# Regions: the registers (as MMIO), and the chip's memory for scripts
LSI, LSI_RAM = 0, 1
LSI_RAM_ADDR = 0xe0002000
DSA, DSP, DMODE, DCNTL, SCNTL0, SIEN0 = 0x10, 0x2c, 0x38, 0x3b, 0x00, 0x40
DATA_OUT, DATA_IN, COMMAND, STATUS, MESSAGE_OUT, MESSAGE_IN = 0, 1, 2, 3, 6, 7
LSI_CDB, LSI_MESSAGE, LSI_SCRATCH, LSI_TABLE = 0x800, 0x840, 0x880, 0x8c0


def lsi_script(target, entries, write, indirect):
    """What a driver does: follow the phases of the bus until the command is complete.

    LSI53C895A technical manual, chapter 5.
    """
    def ram(offset):
        return LSI_RAM_ADDR + offset

    code = [(0x41000000 | target << 16, ram(0))]

    def move(phase, addr, length):
        code.append((0x08000000 | phase << 24 | length, addr))

    move(MESSAGE_OUT, ram(LSI_MESSAGE), 3)
    move(COMMAND, ram(LSI_CDB), 10)
    loop = len(code)
    # Four jumps by phase, then an interrupt: their targets come later
    code += [None] * 5

    def jump(condition, index):
        return (0x80000000 | condition, ram(8 * index))

    def jump_if_phase(phase, index):
        return jump(0x000a0000 | phase << 24, index)

    data = len(code)
    for i, (addr, length) in enumerate(entries):
        phase = DATA_OUT if write else DATA_IN
        if indirect:
            code.append((0x18000000 | phase << 24, 8 * i))
        else:
            move(phase, addr, length)
    code.append(jump(0x00080000, loop))
    status = len(code)
    move(STATUS, ram(LSI_SCRATCH), 1)
    code.append(jump(0x00080000, loop))
    message = len(code)
    move(MESSAGE_IN, ram(LSI_SCRATCH + 4), 1)
    code += [jump(0x000c0004, message + 5), jump(0x000c0000, message + 9),
             (0x60000040, 0), jump(0x00080000, loop),
             # DISCONNECT
             (0x60000040, 0), (0x48000000, 0), (0x50000000, ram(0)), jump(0x00080000, loop),
             # COMMAND COMPLETE
             (0x60000040, 0), (0x48000000, 0), (0x98080000, 0x600d)]
    code[loop:loop + 5] = [jump_if_phase(DATA_OUT if write else DATA_IN, data),
                           jump_if_phase(STATUS, status), jump_if_phase(MESSAGE_IN, message),
                           (0x98080000, 0xbad), (0x98080000, 0xbad)]
    return code


def lsi():
    for target, opcode in (0, READ_10), (0, WRITE_10), (1, READ_10), (2, READ_10):
        blocks = 4 if target == 1 else 16
        for name, entries in lists(8192):
            for indirect in False, True:
                write = opcode == WRITE_10
                p = Program()

                def put(offset, data):
                    data = data.ljust((len(data) + 7) // 8 * 8, b'\0')
                    for i in range(0, len(data), 8):
                        p.write(QUAD, LSI_RAM, offset + i, int.from_bytes(data[i:i + 8], 'little'))

                script = lsi_script(target, entries, write, indirect)
                put(0, b''.join(words(*insn) for insn in script))
                put(LSI_CDB, cdb10(opcode, 8, blocks))
                put(LSI_MESSAGE, bytes([0xc0, 0x20, 1]))
                if indirect:
                    put(LSI_TABLE, b''.join(words(length, addr) for addr, length in entries))
                    p.write(LONG, LSI, DSA, LSI_RAM_ADDR + LSI_TABLE)
                for _ in range(ATTEMPTS):
                    p.write(LONG, LSI, DSP, LSI_RAM_ADDR).wait(3).read(LONG, LSI, 0x0c)
                yield f'{name}-{target}-{opcode:x}-{"table" if indirect else "direct"}', p


# --- ESP --------------------------------------------------------------------------

TCLO, TCMID, FIFO, CMD, DESTID, CFG1, TCHI = 0, 1, 2, 3, 4, 8, 14
CMD_FLUSH, CMD_SELATN, CMD_TI_DMA, CMD_ICCS, CMD_MSGACC = 0x01, 0x42, 0x90, 0x11, 0x12


def esp_command(reg, target, cdb, total):
    """Select with a command from the FIFO, then set the transfer count"""
    reg(CMD, CMD_FLUSH)
    reg(DESTID, target)
    for byte in b'\x80' + cdb:
        reg(FIFO, byte)
    reg(CMD, CMD_SELATN)
    for i, n in enumerate((TCLO, TCMID, TCHI)):
        reg(n, total >> 8 * i & 0xff)


def am53c974():
    """Registers every four bytes, from 0x40 on those of the DMA engine"""
    dma_cmd, stc, spa, smdla = 0x40, 0x44, 0x48, 0x58
    for target, opcode in (0, READ_10), (0, WRITE_10), (1, READ_10):
        total, write = 8192, opcode == WRITE_10
        for addr in RAM, RAM + 1, HOLE, None:
            p = Program()

            def reg(n, value):
                p.out(BYTE, 0, 4 * n, value)

            for _ in range(ATTEMPTS):
                esp_command(reg, target, cdb10(opcode, 8, 4 if target else 16), total)
                p.out(LONG, 0, stc, total)
                if addr is None:
                    # A list of pages, read when the transfer begins
                    p.memory(words(RAM + 0x3000, RAM + 0x1000, RAM + 0x8000))
                    p.out(LONG, 0, spa, 0x10).out(LONG, 0, smdla, 0x9000)
                else:
                    p.out(LONG, 0, spa, addr)
                mdl = 0x10 if addr is None else 0
                p.out(BYTE, 0, dma_cmd, (0 if write else 0x80) | mdl)
                reg(CMD, CMD_TI_DMA)
                p.out(BYTE, 0, dma_cmd, (0 if write else 0x80) | mdl | 3)
                p.wait(2)
                for command in CMD_ICCS, CMD_MSGACC:
                    p.inp(BYTE, 0, 4 * 5)
                    reg(CMD, command)
            yield f'{target}-{opcode:x}-{"mdl" if addr is None else hex(addr)}', p


def esp_sparc():
    """SS-5: the table of the IOMMU is put where the fuzzer can write, into registers
    of the IOMMU itself that only store what they get"""
    iommu, espdma, esp = 0, 1, 2
    iommu_addr, dvma, first = 0x10000000, 0xfc000000, 0x80
    for target, opcode in (0, READ_10), (0, WRITE_10), (1, READ_10):
        total, write = 8192, opcode == WRITE_10
        for offset in 0, 1, 0x1003:
            p = Program(big_endian=True)
            p.write(LONG, iommu, 4, iommu_addr >> 4)
            p.write(LONG, iommu, 0, 0x9)
            for i in range(4):
                pte = (RAM + 0x1000 * (7 - 2 * i)) >> 4 | 6
                p.write(LONG, iommu, 4 * (first + i), pte)

            def reg(n, value):
                p.write(BYTE, esp, 4 * n, value)

            for _ in range(ATTEMPTS):
                p.write(LONG, espdma, 4, dvma + first * 0x1000 + offset)
                p.write(LONG, espdma, 0, 0x210 | (0 if write else 0x100))
                esp_command(reg, target, cdb10(opcode, 8, 4 if target else 16), total)
                reg(CMD, CMD_TI_DMA)
                p.wait(2)
                for command in CMD_ICCS, CMD_MSGACC:
                    p.read(BYTE, esp, 4 * 5)
                    reg(CMD, command)
            yield f'{target}-{opcode:x}-{offset:x}', p


# --- megasas ----------------------------------------------------------------------

MEGASAS, MFI_IQP = 0, 0x40
MFI_INIT, MFI_LD_READ, MFI_LD_WRITE, MFI_LD_SCSI, MFI_PD_SCSI = range(5)
MFI_WRITE, MFI_READ = 0x08, 0x10


def mfi_header(command, target, cdb_len, sges, flags, length):
    return struct.pack('<BBBBBBBBQHHI', command, 0x60, 0, 0, target, 0, cdb_len, sges,
                       0, flags, 0, length)


def megasas():
    init = mfi_header(MFI_INIT, 0, 0, 0, 0, 32) + words(0x6000, 0)
    queue = words(0, 64, 0x30000, 0, 0x40000, 0, 0x41000, 0)
    for name, entries in lists(8192):
        sgl = b''.join(words(addr, length) for addr, length in entries)
        for command, opcode in ((MFI_LD_SCSI, READ_10), (MFI_LD_SCSI, WRITE_10),
                                (MFI_PD_SCSI, READ_10), (MFI_LD_READ, 0), (MFI_LD_WRITE, 0)):
            write = opcode == WRITE_10 or command == MFI_LD_WRITE
            p = Program().memory(init.ljust(64, b'\0'), queue)
            p.write(LONG, MEGASAS, MFI_IQP, 0x5000)
            frame = mfi_header(command, 0, 10 if opcode else 0, len(entries),
                               MFI_WRITE if write else MFI_READ, 8192 if opcode else 16)
            frame += words(0x7000, 0)
            frame += cdb10(opcode, 8, 16).ljust(16, b'\0') if opcode else words(8, 0)
            for _ in range(ATTEMPTS):
                p.memory((frame + sgl).ljust(128, b'\0')).write(LONG, MEGASAS, MFI_IQP, 0x5000)
                p.wait(2)
            yield f'{name}-{command}-{opcode:x}', p


# --- virtio-scsi ------------------------------------------------------------------

# The legacy registers: virtio 1.2, 4.1.4.8
VIRTIO = 0
QUEUE_PFN, QUEUE_SELECT, QUEUE_NOTIFY, DEVICE_STATUS = 8, 14, 16, 18
DESC_NEXT, DESC_WRITE = 1, 2
REQUEST_QUEUE, REQUEST_SIZE, RESPONSE_SIZE = 2, 51, 108


def virtio_scsi():
    for target, opcode in (0, READ_10), (0, WRITE_10), (1, READ_10), (2, READ_10):
        write = opcode == WRITE_10
        for name, entries in lists(8192):
            request = bytes([1, target, 0x40, 0, 0, 0, 0, 0]) + bytes(11)
            request += cdb10(opcode, 8, 4 if target == 1 else 16)
            buffers = [(0x30000, REQUEST_SIZE, 0, request.ljust(REQUEST_SIZE, b'\0'))]
            data = [(addr, length, 0 if write else DESC_WRITE, b'\x5a') for addr, length in entries]
            response = [(0x31000, RESPONSE_SIZE, DESC_WRITE, b'\0')]
            buffers += data + response if write else response + data
            # The queue is read in this order: flags, index and head, then
            # each descriptor and what it is about
            patterns = []
            for i, (addr, length, flags, content) in enumerate(buffers):
                more = DESC_NEXT if i + 1 < len(buffers) else 0
                patterns += [struct.pack('<QIHH', addr, length, flags | more, i + 1), content]
            p = Program()
            for status in 1, 3:
                p.out(BYTE, VIRTIO, DEVICE_STATUS, status)
            p.out(WORD, VIRTIO, QUEUE_SELECT, REQUEST_QUEUE).out(LONG, VIRTIO, QUEUE_PFN, 0x10)
            p.out(BYTE, VIRTIO, DEVICE_STATUS, 7)
            for i in range(ATTEMPTS):
                p.memory(*(struct.pack('<H', n) for n in (0, i + 1, 0)), *patterns)
                p.out(WORD, VIRTIO, QUEUE_NOTIFY, REQUEST_QUEUE).wait(2)
            yield f'{name}-{target}-{opcode:x}', p
