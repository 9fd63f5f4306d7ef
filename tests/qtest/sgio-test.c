/*
 * Pass-through of real SCSI devices: scsi-generic and scsi-block
 *
 * The devices are those of Linux's scsi_debug, which dev/guest/sgio loads in a
 * virtual machine, in which it then runs this test and QEMU.  Without these
 * devices everything is skipped.  The environment names them:
 *
 *     SGIO_TEST_SG     /dev/sg* of a disk
 *     SGIO_TEST_DISK   /dev/sd* of the same disk
 *     SGIO_TEST_TAPE   /dev/sg* of a tape
 *     SGIO_TEST_CD     /dev/sg* of a CD drive, with the data of the disk
 *
 * With SGIO_TEST_STOCK=1, nothing is expected that only this series can do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "qobject/qdict.h"
#include "lsi-scripts.h"
#include "scsi-test-util.h"

/* SPC, SBC, SSC */
#define OP_REQUEST_SENSE        0x03
#define OP_READ_6               0x08
#define OP_WRITE_6              0x0a
#define OP_INQUIRY              0x12
#define OP_MODE_SENSE_6         0x1a
#define OP_READ_CAPACITY_10     0x25
#define OP_READ_10              0x28
#define OP_WRITE_10             0x2a
#define OP_WRITE_VERIFY_10      0x2e
#define OP_VERIFY_10            0x2f
#define   BYTCHK                0x02
#define OP_READ_16              0x88
#define OP_WRITE_16             0x8a
#define OP_SERVICE_ACTION_IN_16 0x9e
#define   SAI_READ_CAPACITY_16  0x10
#define OP_READ_12              0xa8
#define OP_WRITE_12             0xaa
#define OP_READ_DEFECT_DATA_12  0xb7
#define VPD_BLOCK_LIMITS        0xb0
#define   VPD_MAX_TRANSFER      8

#define KEY_RECOVERED_ERROR     0x1
#define KEY_MEDIUM_ERROR        0x3
#define KEY_HARDWARE_ERROR      0x4
#define KEY_ILLEGAL_REQUEST     0x5
#define KEY_UNIT_ATTENTION      0x6
#define KEY_ABORTED_COMMAND     0xb
#define KEY_MISCOMPARE          0xe
#define SENSE(key, asc, ascq)   ((key) << 16 | (asc) << 8 | (ascq))
#define NO_SENSE                0
#define TOO_MUCH_DATA           SENSE(KEY_HARDWARE_ERROR, 0x26, 0x0b)
#define INVALID_FIELD_IN_CDB    SENSE(KEY_ILLEGAL_REQUEST, 0x24, 0x00)
#define INVALID_OPCODE          SENSE(KEY_ILLEGAL_REQUEST, 0x20, 0x00)
#define LBA_OUT_OF_RANGE        SENSE(KEY_ILLEGAL_REQUEST, 0x21, 0x00)
#define IO_PROCESS_TERMINATED   SENSE(KEY_ABORTED_COMMAND, 0x00, 0x06)

/* What the machine's RAM is made of, from here on to its end, is for data */
#define DATA_BEGIN              (16 * MiB)
#define DATA_SIZE               (15 * MiB)
#define RAM_SIZE                (32 * MiB)

#define VIRTIO_SLOT             6
#define LSI_SLOT                4
#define LSI_REGISTERS_BAR       1

typedef enum HBA { VIRTIO, MEGASAS, LSI } HBA;

typedef struct Config {
    HBA hba;
    const char *device;         /* scsi-generic or scsi-block */
    const char *node;           /* what it is made of */
    const char *options;        /* of the device */
} Config;

/* A command, and what became of it */
typedef struct Command {
    uint8_t cdb[16];
    int cdb_len;
    Direction dir;
    SGEntry *list;
    int entries;
    uint32_t bytes;             /* of the list */
    bool pause;                 /* LSI: after the first entry, see lsi_resume */

    uint8_t response;           /* of the HBA; zero if there is a status */
    uint8_t status;
    uint32_t sense;             /* SENSE(), or NO_SENSE */
    uint32_t information;
    uint32_t residual;          /* virtio-scsi only */
} Command;

static const char *sg_node, *disk_node, *tape_node, *cd_node;
static bool patched;
static int disk_fd;
static uint64_t disk_size;
static uint32_t limit;          /* bytes that the disk takes at once */
static char *ram_path;
static uint8_t *ram;            /* the machine's, shared */
static VirtioScsi virtio;
static QGuestAllocator alloc;
static Machine *started;

/* The host's side */

static char *read_line(const char *path)
{
    char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return g_strchomp(text);
}

static void write_line(const char *path, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3);

static void write_line(const char *path, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    int fd = open(path, O_WRONLY);
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assert_cmpint(fd, >=, 0);
    if (write(fd, text, strlen(text)) != strlen(text)) {
        fail("cannot write \"%s\" to %s: %s", text, path, strerror(errno));
    }
    close(fd);
}

/* "host:channel:target:lun" of a node of scsi_debug */
static char *scsi_address(const char *node)
{
    g_autofree char *path = g_strdup_printf(
        "/sys/class/%s/%s/device",
        strstr(node, "/sg") ? "scsi_generic" : "block", node + 5);
    g_autofree char *target = g_file_read_link(path, NULL);

    g_assert_nonnull(target);
    return g_path_get_basename(target);
}

#define SCSI_DEBUG "/sys/bus/pseudo/drivers/scsi_debug/"

/* What the next command with this opcode, of the disk, shall do */
static void inject(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

static void inject(const char *fmt, ...)
{
    g_autofree char *address = scsi_address(sg_node);
    g_autofree char *path = g_strdup_printf(
        "/sys/kernel/debug/scsi_debug/%s/error", address);
    g_autofree char *rule = NULL;
    va_list ap;

    va_start(ap, fmt);
    rule = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    write_line(path, "%s\n", rule);
}

/* How many commands Linux has sent to a device, by its /dev/sg* */
static unsigned int commands_seen_by(const char *node)
{
    g_autofree char *path = g_strdup_printf(
        "/sys/class/scsi_generic/%s/device/iorequest_cnt", node + 5);
    g_autofree char *text = read_line(path);
    unsigned int count;

    g_assert_cmpint(sscanf(text, "%x", &count), ==, 1);
    return count;
}

static unsigned int commands_seen(void)
{
    return commands_seen_by(sg_node);
}

static void disk_read(uint64_t offset, void *buf, uint32_t len)
{
    void *p;

    /* O_DIRECT: what a page cache says is of no use */
    g_assert_cmpint(posix_memalign(&p, 4096, len), ==, 0);
    g_assert_cmpint(pread(disk_fd, p, len, offset), ==, len);
    memcpy(buf, p, len);
    free(p);
}

/* The machine */

static void discard(void)
{
    machine_discard();
    started = NULL;
}

static uint64_t dma_counter(Machine *m, const char *name)
{
    QDict *rsp = qtest_qmp(m->qts, "{ 'execute': 'x-query-dma' }");
    uint64_t value = 0;

    if (qdict_haskey(rsp, "return")) {
        value = qdict_get_int(qdict_get_qdict(rsp, "return"), name);
    }
    qobject_unref(rsp);
    return value;
}

/* Commands */

#define FRAME                   MFI_FRAME(0)
#define SENSE_OFFSET            MFI_FRAME(8)
#define SENSE_SIZE              96

static void parse_sense(Command *cmd, const uint8_t *sense, int len)
{
    cmd->sense = NO_SENSE;
    if (len >= 14 && (sense[0] & 0x7e) == 0x70) {
        cmd->sense = SENSE(sense[2] & 0xf, sense[12], sense[13]);
        cmd->information = sense[0] & 0x80 ? ldl_be_p(&sense[3]) : 0;
    }
}

/* LSI 53C895A: a script that lets the target disconnect when it likes */

/* In the region of tables */
#define LSI_SCRIPT              0x4000
#define LSI_IDENTIFY            0x3000
#define LSI_CDB                 0x3010
#define LSI_STATUS              0x3020
#define LSI_MESSAGE             0x3030
#define LSI_DONE                0x600d
#define LSI_PAUSE               0x9a05e
#define LSI_UNEXPECTED          0xbad

static uint32_t lsi_dispatch;

static void lsi_submit(Machine *m, Command *cmd)
{
    const uint8_t identify = MSG_IDENTIFY | IDENTIFY_DISC_PRIV;
    uint32_t base = m->region[TABLE].base;
    uint32_t message = base + LSI_MESSAGE;
    uint32_t when_msg_in, if_data, if_status, if_disconnect;
    Phase phase = cmd->dir == READ ? DATA_IN : DATA_OUT;
    Script s;
    int i;

    region_write(m, TABLE, LSI_IDENTIFY, &identify, 1);
    region_write(m, TABLE, LSI_CDB, cmd->cdb, cmd->cdb_len);
    script_begin(&s, m->qts, base + LSI_SCRIPT);
    select_atn(&s, 0, 0);
    move(&s, MESSAGE_OUT, base + LSI_IDENTIFY, 1);
    move(&s, COMMAND, base + LSI_CDB, cmd->cdb_len);

    lsi_dispatch = s.here;
    when_msg_in = jump(&s, WHEN_PHASE(MESSAGE_IN), 0);
    if_data = jump(&s, IF_PHASE(phase), 0);
    if_status = jump(&s, IF_PHASE(STATUS), 0);
    interrupt(&s, ALWAYS, LSI_UNEXPECTED);

    land(&s, when_msg_in);
    move(&s, MESSAGE_IN, message, 1);
    if_disconnect = jump(&s, IF_DATA(MSG_DISCONNECT), 0);
    clear_ack(&s);
    jump(&s, ALWAYS, lsi_dispatch);

    land(&s, if_disconnect);
    clear_ack(&s);
    wait_disconnect(&s);
    wait_reselect(&s, 0);
    move(&s, MESSAGE_IN, message, 1);
    clear_ack(&s);
    jump(&s, ALWAYS, lsi_dispatch);

    land(&s, if_status);
    move(&s, STATUS, base + LSI_STATUS, 1);
    move(&s, MESSAGE_IN, message, 1);
    clear_ack(&s);
    wait_disconnect(&s);
    interrupt(&s, ALWAYS, LSI_DONE);

    land(&s, if_data);
    for (i = 0; i < cmd->entries; i++) {
        move(&s, phase, cmd->list[i].addr, cmd->list[i].len);
        if (cmd->pause && i == 0) {
            interrupt(&s, ALWAYS, LSI_PAUSE);
        }
    }
    jump(&s, ALWAYS, lsi_dispatch);
    script_end(&s);
    qpci_io_writel(m->hba, m->hba_bar, DSP, base + LSI_SCRIPT);
}

/* Until the script interrupts with this */
static void lsi_wait_for(Machine *m, uint32_t dsps)
{
    int64_t deadline = patience_ends();
    uint8_t sist0, dstat;

    for (;;) {
        while (!(qpci_io_readb(m->hba, m->hba_bar, ISTAT0) &
                 (ISTAT0_DIP | ISTAT0_SIP))) {
            /* After 500 instructions the chip makes a pause */
            qtest_clock_step(m->qts, NANOSECONDS_PER_SECOND / 1000);
            wait_before_poll(deadline, "interrupt");
        }
        sist0 = qpci_io_readb(m->hba, m->hba_bar, SIST0);
        dstat = qpci_io_readb(m->hba, m->hba_bar, DSTAT) & ~DSTAT_DFE;
        if (sist0 != SIST0_MA) {
            break;
        }
        /* The target has no data, or no more of it */
        qpci_io_writel(m->hba, m->hba_bar, DSP, lsi_dispatch);
    }
    g_assert_cmphex(sist0, ==, 0);
    g_assert_cmphex(dstat, ==, DSTAT_SIR);
    g_assert_cmphex(qpci_io_readl(m->hba, m->hba_bar, DSPS), ==, dsps);
}

static void lsi_resume(Machine *m)
{
    qpci_io_writel(m->hba, m->hba_bar, DSP,
                   qpci_io_readl(m->hba, m->hba_bar, DSP));
}

/* Returns the status */
static uint8_t lsi_wait(Machine *m)
{
    lsi_wait_for(m, LSI_DONE);
    region_accept(m, TABLE, 0, m->region[TABLE].size);
    return m->region[TABLE].want[LSI_STATUS];
}

/* The chip has no autosense */
static void lsi_finish(Machine *m, Command *cmd)
{
    SGEntry entry = { m->region[TABLE].base + SENSE_OFFSET, 18 };
    Command request_sense = {
        .cdb = { OP_REQUEST_SENSE, [4] = 18 },
        .cdb_len = 6,
        .list = &entry,
        .entries = 1,
    };

    cmd->response = 0;
    cmd->status = lsi_wait(m);
    cmd->sense = NO_SENSE;
    if (cmd->status == SCSI_CHECK_CONDITION) {
        lsi_submit(m, &request_sense);
        g_assert_cmphex(lsi_wait(m), ==, SCSI_GOOD);
        parse_sense(cmd, m->region[TABLE].want + SENSE_OFFSET, 18);
    }
}

static void submit(Machine *m, const Config *c, Command *cmd)
{
    uint8_t frame[MFI_PASS_SGL + MFI_MAX_SGE * MFI_SGE_SIZE] = { };
    uint32_t len;

    switch (c->hba) {
    case VIRTIO:
        virtio_scsi_post(m, &virtio, cmd->cdb, cmd->cdb_len, cmd->dir,
                         cmd->list, cmd->entries);
        break;
    case MEGASAS:
        frame[MFI_FRAME_CMD] = MFI_CMD_PD_SCSI_IO;
        frame[MFI_FRAME_SENSE_LEN] = SENSE_SIZE;
        frame[MFI_FRAME_CMD_STATUS] = MFI_STAT_PENDING;
        frame[MFI_FRAME_CDB_LEN] = cmd->cdb_len;
        stl_le_p(&frame[MFI_FRAME_DATA_LEN], cmd->bytes);
        stl_le_p(&frame[MFI_FRAME_SENSE_LOW],
                 m->region[TABLE].base + SENSE_OFFSET);
        memcpy(&frame[MFI_PASS_CDB], cmd->cdb, cmd->cdb_len);
        len = megasas_put_sgl(frame, MFI_PASS_SGL, cmd->list, cmd->entries);
        megasas_post(m, FRAME, frame, len);
        break;
    case LSI:
        lsi_submit(m, cmd);
        break;
    }
}

static void finish(Machine *m, const Config *c, Command *cmd)
{
    struct virtio_scsi_cmd_resp resp;
    uint8_t mfi_status;

    switch (c->hba) {
    case VIRTIO:
        virtio_scsi_wait(m, &virtio, &resp);
        cmd->response = resp.response;
        cmd->status = resp.status;
        cmd->residual = le32_to_cpu(resp.resid);
        parse_sense(cmd, resp.sense, le32_to_cpu(resp.sense_len));
        break;
    case MEGASAS:
        mfi_status = megasas_wait(m, FRAME);
        cmd->status = megasas_frame_readb(m, FRAME, MFI_FRAME_SCSI_STATUS);
        cmd->response = mfi_status == MFI_STAT_SCSI_DONE_WITH_ERROR ? 0 :
                        mfi_status;
        region_accept(m, TABLE, FRAME, 64);
        region_accept(m, TABLE, SENSE_OFFSET, SENSE_SIZE);
        parse_sense(cmd, m->region[TABLE].want + SENSE_OFFSET,
                    cmd->status == SCSI_CHECK_CONDITION ? SENSE_SIZE : 0);
        break;
    case LSI:
        lsi_finish(m, cmd);
        break;
    }
}

static void run(Machine *m, const Config *c, Command *cmd)
{
    submit(m, c, cmd);
    finish(m, c, cmd);
}

static Machine *begin(const Config *c)
{
    static const char *const hba[] = {
        [VIRTIO] = "-device virtio-scsi-pci,id=hba,addr=6,virtqueue_size=128",
        [MEGASAS] = "-device megasas,id=hba,addr=5",
        [LSI] = "",
    };
    g_autofree char *machine = g_strdup_printf(
        "-object memory-backend-file,id=ram,size=32M,share=on,mem-path=%s "
        "-machine memory-backend=ram "
        "-drive if=none,id=drive0,format=raw,file=%s "
        "%s -device %s,id=disk0,drive=drive0,bus=%s.0,scsi-id=0%s%s",
        ram_path, c->node, hba[c->hba], c->device,
        c->hba == LSI ? "scsi" : "hba",
        c->options ? "," : "", c->options ?: "");
    Setup setup = {
        .machine = g_intern_string(machine),
        .hba_devfn = QPCI_DEVFN(c->hba == VIRTIO ? VIRTIO_SLOT :
                                c->hba == MEGASAS ? MEGASAS_SLOT : LSI_SLOT,
                                0),
        .hba_bar = c->hba == VIRTIO ? 0 : c->hba == MEGASAS ?
                   MEGASAS_PORT_BAR : LSI_REGISTERS_BAR,
    };
    Machine *m = test_begin(&setup);

    if (m != started) {
        started = m;
        if (c->hba == VIRTIO) {
            alloc_init(&alloc, 0, VIRTIO_MEMORY_BEGIN, VIRTIO_MEMORY_END,
                       4 * KiB);
            virtio_scsi_start(m, &virtio, VIRTIO_SLOT, &alloc);
        } else if (c->hba == LSI) {
            Command test_unit_ready = { .cdb_len = 6 };

            /* Power on */
            run(m, c, &test_unit_ready);
        }
    }
    return m;
}

static void command_free(Command *cmd)
{
    g_clear_pointer(&cmd->list, g_free);
}

#define AUTO_COMMAND __attribute__((cleanup(command_free))) Command

static void add_entry(Command *cmd, uint64_t addr, uint32_t len)
{
    cmd->list = g_renew(SGEntry, cmd->list, cmd->entries + 1);
    cmd->list[cmd->entries++] = (SGEntry) { addr, len };
    cmd->bytes += len;
}

/* A READ, WRITE or VERIFY of any length of CDB */
static void set_cdb(Command *cmd, uint8_t op, uint64_t lba, uint32_t blocks)
{
    static const uint8_t len[8] = { 6, 10, 10, 0, 16, 12 };

    memset(cmd->cdb, 0, sizeof(cmd->cdb));
    cmd->cdb[0] = op;
    cmd->cdb_len = len[op >> 5];
    switch (cmd->cdb_len) {
    case 6:
        stl_be_p(cmd->cdb, (uint32_t)op << 24 | lba);
        cmd->cdb[4] = blocks;
        break;
    case 10:
        stl_be_p(&cmd->cdb[2], lba);
        stw_be_p(&cmd->cdb[7], blocks);
        break;
    case 12:
        stl_be_p(&cmd->cdb[2], lba);
        stl_be_p(&cmd->cdb[6], blocks);
        break;
    case 16:
        stq_be_p(&cmd->cdb[2], lba);
        stl_be_p(&cmd->cdb[10], blocks);
        break;
    }
}

static uint8_t *entry_data(Machine *m, const SGEntry *e)
{
    Region *mmio = &m->region[MMIO];

    if (e->addr >= mmio->base && e->addr < mmio->base + mmio->size) {
        return mmio->want + (e->addr - mmio->base);
    }
    g_assert_cmpuint(e->addr + e->len, <=, RAM_SIZE);
    return ram + e->addr;
}

/* All data of a command, from memory */
static uint8_t *gather(Machine *m, const Command *cmd)
{
    uint8_t *data = g_malloc(cmd->bytes), *p = data;
    int i;

    /* Whatever is there now is right as far as regions are concerned */
    region_accept(m, MMIO, 0, m->region[MMIO].size);
    for (i = 0; i < cmd->entries; i++) {
        memcpy(p, entry_data(m, &cmd->list[i]), cmd->list[i].len);
        p += cmd->list[i].len;
    }
    return data;
}

/* How much of the memory for data a command uses, and a border behind it */
static uint32_t data_used(const Command *cmd)
{
    uint32_t end = 64 * KiB;
    int i;

    for (i = 0; i < cmd->entries; i++) {
        const SGEntry *e = &cmd->list[i];

        if (e->addr >= DATA_BEGIN && e->addr < RAM_SIZE) {
            end = MAX(end, e->addr + e->len - DATA_BEGIN);
        }
    }
    return MIN(QEMU_ALIGN_UP(end, 4) + 4 * KiB, DATA_SIZE);
}

/* New contents for the memory of a command, and a border around it */
static void scramble_list(Machine *m, const Command *cmd)
{
    static uint32_t seed;
    uint32_t *p = (uint32_t *)(ram + DATA_BEGIN);
    uint32_t n = data_used(cmd) / 4, i;

    seed += 0x9e3779b9;
    for (i = 0; i < n; i++) {
        p[i] = (i + seed) * 2654435761u;
    }
    for (i = 0; i < cmd->entries; i++) {
        const SGEntry *e = &cmd->list[i];
        uint64_t offset = e->addr - m->region[MMIO].base;

        if (e->addr >= m->region[MMIO].base &&
            offset < m->region[MMIO].size) {
            region_write(m, MMIO, offset, ram + DATA_BEGIN + offset, e->len);
        }
    }
}

/*
 * Run a read or write of blocks of the disk that has to succeed, and see that
 * its data is right, and that nothing else has changed.
 */
static void transfer(Machine *m, const Config *c, Command *cmd, uint64_t lba)
{
    uint32_t used = data_used(cmd);
    g_autofree uint8_t *before = g_malloc(used);
    g_autofree uint8_t *want = g_malloc(cmd->bytes + 2 * SECTOR);
    g_autofree uint8_t *got = NULL;
    uint64_t start = (lba - 1) * SECTOR;
    uint8_t *p;
    int i;

    begin(c);
    scramble_list(m, cmd);
    disk_read(start, want, cmd->bytes + 2 * SECTOR);
    memcpy(before, ram + DATA_BEGIN, used);
    if (cmd->dir == WRITE) {
        got = gather(m, cmd);
        memcpy(want + SECTOR, got, cmd->bytes);
        g_clear_pointer(&got, g_free);
    }

    run(m, c, cmd);
    g_assert_cmphex(cmd->response, ==, 0);
    if (cmd->status != SCSI_GOOD) {
        fail("status 0x%x, sense 0x%06x", cmd->status, cmd->sense);
    }
    g_assert_cmpuint(cmd->residual, ==, 0);

    if (cmd->dir == WRITE) {
        got = g_malloc(cmd->bytes + 2 * SECTOR);
        disk_read(start, got, cmd->bytes + 2 * SECTOR);
        g_assert_true(!memcmp(got, want, cmd->bytes + 2 * SECTOR));
    } else {
        got = gather(m, cmd);
        g_assert_true(!memcmp(got, want + SECTOR, cmd->bytes));
        for (i = 0, p = want + SECTOR; i < cmd->entries; i++) {
            const SGEntry *e = &cmd->list[i];

            if (entry_data(m, e) == ram + e->addr) {
                memcpy(before + (e->addr - DATA_BEGIN), p, e->len);
            }
            p += e->len;
        }
    }
    g_assert_true(!memcmp(before, ram + DATA_BEGIN, used));
}

/* The same in one piece of RAM */
static void transfer_ram(Machine *m, const Config *c, uint8_t op,
                         Direction dir, uint64_t lba, uint32_t bytes,
                         uint32_t misalignment)
{
    AUTO_COMMAND cmd = { .dir = dir };

    add_entry(&cmd, DATA_BEGIN + misalignment, bytes);
    set_cdb(&cmd, op, lba, bytes / SECTOR);
    transfer(m, c, &cmd, lba);
}

/* Tests */

/*
 * Every way in which a transfer is one piece of RAM goes directly, whatever
 * its length and address.
 */
static void test_size(const void *data, Direction dir)
{
    const Config *c = data;
    const uint32_t sizes[] = {
        512, 1024, 4096, 64 * KiB - 512, 64 * KiB,
        limit - 4096, limit - 512, limit, limit + 512, limit + 4096,
        2 * limit - 512, 2 * limit, 2 * limit + 512,
        1 * MiB - 512, 1 * MiB, 3 * MiB + 1536, 8 * MiB,
    };
    Machine *m = begin(c);
    uint8_t op = dir == READ ? OP_READ_10 : OP_WRITE_10;
    uint64_t total = 0, direct, bounced;
    int i;

    direct = dma_counter(m, "bytes-direct");
    bounced = dma_counter(m, "bytes-bounced");
    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        transfer_ram(m, c, op, dir, 8 + i, sizes[i], 0);
        total += sizes[i];
    }
    for (i = 4; i < 10; i++) {
        /* As some drivers of Linux do, and as none does */
        transfer_ram(m, c, op, dir, 100 + i, sizes[i], 512);
        transfer_ram(m, c, op, dir, 1000 + i, sizes[i], 3);
        total += 2 * sizes[i];
    }
    direct = dma_counter(m, "bytes-direct") - direct;
    bounced = dma_counter(m, "bytes-bounced") - bounced;
    if (patched) {
        g_assert_cmpuint(direct, ==, total);
        g_assert_cmpuint(bounced, ==, 0);
    }
    test_end(m);
}

static void test_read(const void *data)
{
    test_size(data, READ);
}

static void test_write(const void *data)
{
    test_size(data, WRITE);
}

static void add_pages(Command *cmd, uint32_t bytes, uint32_t entry,
                      uint32_t gap)
{
    uint64_t addr = DATA_BEGIN + (cmd->entries ? 4 * MiB : 0);

    for (; bytes > 0; bytes -= MIN(bytes, entry), addr += entry + gap) {
        add_entry(cmd, addr, MIN(bytes, entry));
    }
}

/* Every kind of command that is split, with blocks on both sides of each cut */
static void test_cdb(const void *data)
{
    static const uint8_t ops[] = {
        OP_READ_6, OP_WRITE_6, OP_READ_10, OP_WRITE_10, OP_WRITE_VERIFY_10,
        OP_READ_12, OP_WRITE_12, OP_READ_16, OP_WRITE_16,
    };
    const Config *c = data;
    Machine *m = begin(c);
    int i;

    for (i = 0; i < ARRAY_SIZE(ops); i++) {
        Direction dir = ops[i] == OP_READ_6 || ops[i] == OP_READ_10 ||
                        ops[i] == OP_READ_12 || ops[i] == OP_READ_16 ?
                        READ : WRITE;
        uint32_t bytes = ops[i] >> 5 ? 2 * limit + 1024 : 128 * KiB;
        uint32_t parts = DIV_ROUND_UP(bytes, limit);
        AUTO_COMMAND probe = { .dir = dir };
        unsigned int seen;

        add_entry(&probe, DATA_BEGIN, SECTOR);
        set_cdb(&probe, ops[i], 0, 1);
        run(m, c, &probe);
        if (probe.sense == INVALID_OPCODE) {
            g_test_message("scsi_debug does not know 0x%02x", ops[i]);
            continue;
        }
        seen = commands_seen();
        transfer_ram(m, c, ops[i], dir, 2000 + i, bytes, 0);
        if (patched) {
            /* Two are for disk_read(), which Linux may split */
            g_assert_cmpuint(commands_seen() - seen, >=, parts + 1);
        }
    }
    test_end(m);
}

/* VERIFY compares all blocks with the data, and says which is different */
static void test_verify(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = WRITE };
    Machine *m = begin(c);
    uint32_t bytes = 2 * limit + 1024;

    add_entry(&cmd, DATA_BEGIN, bytes);
    disk_read(3000 * SECTOR, ram + DATA_BEGIN, bytes);
    set_cdb(&cmd, OP_VERIFY_10, 3000, bytes / SECTOR);
    cmd.cdb[1] = BYTCHK;
    run(m, c, &cmd);
    g_assert_cmphex(cmd.response, ==, 0);
    g_assert_cmphex(cmd.status, ==, SCSI_GOOD);

    ram[DATA_BEGIN + bytes - 1] ^= 1;
    run(m, c, &cmd);
    g_assert_cmphex(cmd.status, ==, SCSI_CHECK_CONDITION);
    g_assert_cmphex(cmd.sense >> 16, ==, KEY_MISCOMPARE);
    test_end(m);
}

/* Lists as no driver would write them */
static void test_list(const void *data)
{
    const Config *c = data;
    Machine *m = begin(c);
    int i;

    /* virtio maps MMIO itself, all of it or nothing, for a list of its own */
    for (i = 0; i < (c->hba == VIRTIO ? 10 : 16); i++) {
        AUTO_COMMAND cmd = { .dir = i & 1 ? WRITE : READ };
        uint64_t mmio = m->region[MMIO].base;
        uint64_t bounced = dma_counter(m, "bytes-bounced");
        bool all_ram = i < 10;

        switch (i / 2) {
        case 0:
            add_pages(&cmd, 100 * 4 * KiB, 4 * KiB, 4 * KiB);
            break;
        case 1:
            add_pages(&cmd, 120, 1, 1);
            add_entry(&cmd, DATA_BEGIN + 1 * MiB + 5, 392);
            break;
        case 2:
            add_entry(&cmd, DATA_BEGIN + 3, 509);
            add_pages(&cmd, 2 * limit + 3, 32 * KiB + 511, 7);
            break;
        case 3:
            /* Contiguous, and apart */
            add_entry(&cmd, DATA_BEGIN, 100);
            add_entry(&cmd, DATA_BEGIN + 100, 1948);
            add_entry(&cmd, DATA_BEGIN + 8192, 3 * limit);
            break;
        case 4:
            add_pages(&cmd, 64 * 4 * KiB, 4 * KiB, 512);
            break;
        case 5:
            add_entry(&cmd, mmio, 8192);
            break;
        case 6:
            add_entry(&cmd, DATA_BEGIN, 100);
            add_entry(&cmd, mmio + 8, 8000);
            add_entry(&cmd, DATA_BEGIN + 4096, 92);
            break;
        case 7:
            /* In the middle of one that is split */
            add_entry(&cmd, DATA_BEGIN, limit + 100);
            add_entry(&cmd, mmio, 8100);
            add_entry(&cmd, DATA_BEGIN + 4 * MiB, limit + 4 * KiB - 8);
            break;
        }
        set_cdb(&cmd, cmd.dir == READ ? OP_READ_10 : OP_WRITE_10, 5000 + i,
                cmd.bytes / SECTOR);
        g_assert_cmpuint(cmd.bytes % SECTOR, ==, 0);
        transfer(m, c, &cmd, 5000 + i);
        if (patched) {
            bounced = dma_counter(m, "bytes-bounced") - bounced;
            g_assert_true(all_ram ? !bounced : bounced >= 8000);
            /* No more than the parts that MMIO is in */
            g_assert_cmpuint(bounced, <=, 2 * limit);
        }
    }
    test_end(m);
}

static uint64_t peak_memory(Machine *m)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            qtest_pid(m->qts));
    g_autofree char *text = read_line(path);
    uint64_t kib;

    g_assert_cmpint(sscanf(strstr(text, "VmHWM:"), "VmHWM: %" SCNu64, &kib),
                    ==, 1);
    return kib * KiB;
}

static void expect_sense(Machine *m, const Config *c, Command *cmd,
                         uint32_t sense)
{
    run(m, c, cmd);
    g_assert_cmphex(cmd->response, ==, 0);
    g_assert_cmphex(cmd->status, ==, SCSI_CHECK_CONDITION);
    g_assert_cmphex(cmd->sense, ==, sense);
}

/* A CDB names as much data as it likes: QEMU does not allocate it */
static void test_absurd(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);
    uint64_t before = peak_memory(m);

    add_entry(&cmd, DATA_BEGIN, SECTOR);
    scramble_list(m, &cmd);

    /* 2 GiB - 512 for the disk, twice that for anybody */
    set_cdb(&cmd, OP_READ_16, 0, 0x3fffff);
    expect_sense(m, c, &cmd, TOO_MUCH_DATA);
    set_cdb(&cmd, OP_READ_12, 0, 0x7fffff);
    expect_sense(m, c, &cmd, INVALID_FIELD_IN_CDB);
    set_cdb(&cmd, OP_READ_DEFECT_DATA_12, 0, 0x7fffffff);
    expect_sense(m, c, &cmd, TOO_MUCH_DATA);
    cmd.dir = WRITE;
    set_cdb(&cmd, OP_WRITE_16, 0, 0x3fffff);
    expect_sense(m, c, &cmd, TOO_MUCH_DATA);

    g_assert_cmpuint(peak_memory(m) - before, <, 4 * MiB);
    cmd.dir = READ;
    set_cdb(&cmd, OP_READ_16, 7, 1);
    transfer(m, c, &cmd, 7);
    test_end(m);
}

/* What would need too large a buffer is split if it can be, else refused */
static void test_max_bounce(const void *data)
{
    Config c = *(const Config *)data;
    AUTO_COMMAND cmd = { .dir = READ };
    AUTO_COMMAND inquiry = { .dir = READ };
    Machine *m;
    uint64_t bounced;

    c.options = "max-bounce=4096";
    m = begin(&c);
    add_entry(&cmd, m->region[MMIO].base, 8192);
    add_entry(&cmd, DATA_BEGIN, 8192);
    set_cdb(&cmd, OP_READ_10, 400, 32);
    bounced = dma_counter(m, "bytes-bounced");
    transfer(m, &c, &cmd, 400);
    bounced = dma_counter(m, "bytes-bounced") - bounced;
    g_assert_cmpuint(bounced, >=, 8192);

    /* Not a read of blocks: nothing to split */
    set_cdb(&cmd, OP_READ_DEFECT_DATA_12, 0, 0);
    stl_be_p(&cmd.cdb[6], 16384);
    expect_sense(m, &c, &cmd, TOO_MUCH_DATA);

    /* QEMU looks into the reply */
    add_entry(&inquiry, DATA_BEGIN, 4096);
    inquiry.cdb[0] = OP_INQUIRY;
    stw_be_p(&inquiry.cdb[3], 4096);
    inquiry.cdb_len = 6;
    run(m, &c, &inquiry);
    g_assert_cmphex(inquiry.status, ==, SCSI_GOOD);
    add_entry(&inquiry, DATA_BEGIN + 4096, 1);
    stw_be_p(&inquiry.cdb[3], 4097);
    expect_sense(m, &c, &inquiry, TOO_MUCH_DATA);
    test_end(m);
    discard();
}

/* Nothing of a command is done that ends behind the last block */
static void test_out_of_range(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = WRITE };
    AUTO_COMMAND capacity = { .dir = READ };
    Machine *m = begin(c);
    uint64_t blocks = disk_size / SECTOR;
    uint32_t bytes = 2 * limit;
    g_autofree uint8_t *before = g_malloc(bytes);
    g_autofree uint8_t *after = g_malloc(bytes);

    add_entry(&capacity, DATA_BEGIN, 8);
    capacity.cdb[0] = OP_READ_CAPACITY_10;
    capacity.cdb_len = 10;
    run(m, c, &capacity);
    g_assert_cmphex(capacity.status, ==, SCSI_GOOD);
    g_assert_cmpuint(ldl_be_p(ram + DATA_BEGIN), ==, blocks - 1);

    disk_read(disk_size - bytes, before, bytes);
    add_entry(&cmd, DATA_BEGIN, bytes);
    scramble_list(m, &cmd);
    set_cdb(&cmd, OP_WRITE_10, blocks - bytes / SECTOR + 1, bytes / SECTOR);
    expect_sense(m, c, &cmd, LBA_OUT_OF_RANGE);
    disk_read(disk_size - bytes, after, bytes);
    g_assert_true(!memcmp(before, after, bytes));

    /* This address plus a few blocks is a small one */
    set_cdb(&cmd, OP_WRITE_16, UINT64_MAX - 1, bytes / SECTOR);
    expect_sense(m, c, &cmd, LBA_OUT_OF_RANGE);
    test_end(m);
}

/* scsi_debug: these blocks cannot be read if it is told so */
#define BAD_LBA                 0x1234
#define OPT_MEDIUM_ERR          2
#define OPT_RECOVERED_ERR       8
#define OPT_SHORT_TRANSFER      0x100

static void set_option(int option, int every_nth)
{
    write_line(SCSI_DEBUG "opts", "%d", option);
    write_line(SCSI_DEBUG "every_nth", "%d", every_nth);
}

/* A block in the third part of a read is bad: the first two have their data */
static void test_medium_error(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);
    uint32_t lba = BAD_LBA - 2 * limit / SECTOR - 3;
    g_autofree uint8_t *want = g_malloc(2 * limit);

    add_entry(&cmd, DATA_BEGIN, 4 * limit);
    scramble_list(m, &cmd);
    disk_read((uint64_t)lba * SECTOR, want, 2 * limit);
    set_cdb(&cmd, OP_READ_10, lba, cmd.bytes / SECTOR);
    set_option(OPT_MEDIUM_ERR, 0);
    run(m, c, &cmd);
    set_option(0, 0);
    g_assert_cmphex(cmd.response, ==, 0);
    g_assert_cmphex(cmd.status, ==, SCSI_CHECK_CONDITION);
    g_assert_cmphex(cmd.sense >> 16, ==, KEY_MEDIUM_ERROR);
    g_assert_cmphex(cmd.information, ==, BAD_LBA);
    if (patched) {
        g_assert_true(!memcmp(want, ram + DATA_BEGIN, 2 * limit));
    }
    set_cdb(&cmd, OP_READ_10, lba, cmd.bytes / SECTOR);
    transfer(m, c, &cmd, lba);
    test_end(m);
}

/*
 * What the host's SCSI layer can report of a command, and what the guest sees.
 * The rules of scsi_debug say: host byte, driver byte, status, sense.
 */
static void test_status(const void *data)
{
    static const struct {
        const char *rule;
        uint8_t response;       /* of virtio-scsi */
        uint8_t status;
        uint32_t sense;         /* for HBAs without such a response, too */
    } tests[] = {
        { "0 0 2 3 11 1", 0, SCSI_CHECK_CONDITION,
          SENSE(KEY_MEDIUM_ERROR, 0x11, 1) },
        { "0 0 2 6 29 0", 0, SCSI_CHECK_CONDITION,
          SENSE(KEY_UNIT_ATTENTION, 0x29, 0) },
        { "0 0 2 b 47 0", 0, SCSI_CHECK_CONDITION,
          SENSE(KEY_ABORTED_COMMAND, 0x47, 0) },
        { "0 0 18 0 0 0", 0, SCSI_RESERVATION_CONFLICT, NO_SENSE },
        { "1 0 0 0 0 0", VIRTIO_SCSI_S_INCORRECT_LUN, SCSI_CHECK_CONDITION,
          SENSE(KEY_ABORTED_COMMAND, 0x05, 0) },
        { "5 0 0 0 0 0", VIRTIO_SCSI_S_ABORTED, SCSI_CHECK_CONDITION,
          SENSE(KEY_ABORTED_COMMAND, 0x2f, 2) },
        { "7 0 0 0 0 0", VIRTIO_SCSI_S_FAILURE, SCSI_CHECK_CONDITION,
          SENSE(KEY_HARDWARE_ERROR, 0x44, 0) },
    };
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);
    int i;

    add_entry(&cmd, DATA_BEGIN, 4096);
    set_cdb(&cmd, OP_READ_10, 80, 8);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        inject("2 -1 28 %s", tests[i].rule);
        run(m, c, &cmd);
        g_test_message("%s: response %d, status 0x%x, sense 0x%06x",
                       tests[i].rule, cmd.response, cmd.status, cmd.sense);
        inject("- 2 28");
        if (c->hba == VIRTIO && tests[i].response) {
            g_assert_cmphex(cmd.response, ==, tests[i].response);
        } else {
            g_assert_cmphex(cmd.response, ==, 0);
            g_assert_cmphex(cmd.status, ==, tests[i].status);
            g_assert_cmphex(cmd.sense, ==, tests[i].sense);
        }
        transfer(m, c, &cmd, 80);
    }
    test_end(m);
}

/* A device that has recovered from an error has done all of the command */
static void test_recovered_error(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);
    g_autofree uint8_t *want = g_malloc(4 * limit);

    add_entry(&cmd, DATA_BEGIN, 4 * limit);
    scramble_list(m, &cmd);
    disk_read(600 * SECTOR, want, 4 * limit);
    set_cdb(&cmd, OP_READ_10, 600, cmd.bytes / SECTOR);
    /* Only commands that follow each other are sure to meet one of these */
    if (!patched) {
        g_test_skip("not split");
        test_end(m);
        return;
    }
    set_option(OPT_RECOVERED_ERR, 2);
    run(m, c, &cmd);
    set_option(0, 0);
    g_assert_cmphex(cmd.response, ==, 0);
    g_assert_cmphex(cmd.status, ==, SCSI_CHECK_CONDITION);
    g_assert_cmphex(cmd.sense >> 16, ==, KEY_RECOVERED_ERROR);
    g_assert_true(!memcmp(want, ram + DATA_BEGIN, 4 * limit));
    test_end(m);
}

/* The device moves half of what it was told: the guest sees the residual */
static void test_short_transfer(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);
    g_autofree uint8_t *want = g_malloc(64 * KiB);

    add_entry(&cmd, DATA_BEGIN, 64 * KiB);
    scramble_list(m, &cmd);
    disk_read(700 * SECTOR, want, 64 * KiB);
    set_cdb(&cmd, OP_READ_10, 700, 128);
    set_option(OPT_SHORT_TRANSFER, 1);
    run(m, c, &cmd);
    set_option(0, 0);
    g_assert_cmphex(cmd.response, ==, 0);
    g_assert_cmphex(cmd.status, ==, SCSI_GOOD);
    g_assert_cmpuint(cmd.residual, ==, 32 * KiB);
    g_assert_true(!memcmp(want, ram + DATA_BEGIN, 32 * KiB));
    test_end(m);
}

/* A reply shorter than its buffer leaves the rest of the buffer alone */
static void test_short_reply(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);
    uint32_t i, len;

    add_entry(&cmd, DATA_BEGIN, 252);
    memset(ram + DATA_BEGIN, 0xee, 252);
    cmd.cdb[0] = OP_INQUIRY;
    cmd.cdb[4] = 252;
    cmd.cdb_len = 6;
    run(m, c, &cmd);
    g_assert_cmphex(cmd.status, ==, SCSI_GOOD);
    len = ram[DATA_BEGIN + 4] + 5;
    g_assert_cmpuint(len, <, 252);
    g_assert_cmpuint(cmd.residual, ==, 252 - len);
    for (i = len; i < 252; i++) {
        g_assert_cmphex(ram[DATA_BEGIN + i], ==, 0xee);
    }
    test_end(m);
}

/* QEMU looks into replies no further than they go */
static void test_tiny_reply(const void *data)
{
    static const struct {
        uint8_t cdb[16];
        uint8_t len;
    } one_byte[] = {
        { { OP_SERVICE_ACTION_IN_16, SAI_READ_CAPACITY_16, [13] = 1 }, 16 },
        { { OP_INQUIRY, [4] = 1 }, 6 },
        { { OP_MODE_SENSE_6, [4] = 1 }, 6 },
    };
    const Config *c = data;
    AUTO_COMMAND vpd = { .dir = READ };
    Machine *m = begin(c);
    int i;

    for (i = 0; i < ARRAY_SIZE(one_byte); i++) {
        AUTO_COMMAND cmd = { .dir = READ, .cdb_len = one_byte[i].len };

        add_entry(&cmd, DATA_BEGIN, 1);
        memcpy(cmd.cdb, one_byte[i].cdb, sizeof(cmd.cdb));
        run(m, c, &cmd);
        g_assert_cmphex(cmd.response, ==, 0);
    }
    /* The limit is in blocks, of a size that stays as it is */
    add_entry(&vpd, DATA_BEGIN, 64);
    vpd.cdb[0] = OP_INQUIRY;
    vpd.cdb[1] = 1;
    vpd.cdb[2] = VPD_BLOCK_LIMITS;
    vpd.cdb[4] = 64;
    vpd.cdb_len = 6;
    run(m, c, &vpd);
    g_assert_cmphex(vpd.status, ==, SCSI_GOOD);
    g_assert_cmpuint(ldl_be_p(ram + DATA_BEGIN + VPD_MAX_TRANSFER), ==,
                     limit / SECTOR);
    test_end(m);
}

/* So long that there is time for what a test wants to do meanwhile */
#define SLOW_US                 "300000"

static void set_delay(const char *us)
{
    write_line(SCSI_DEBUG "ndelay", "%s%s", us, strcmp(us, "0") ? "000" : "");
    if (!strcmp(us, "0")) {
        write_line(SCSI_DEBUG "delay", "0");
    }
}

/* What the command has done to the memory, it may; nothing else has changed */
static void expect_end(Machine *m, const Config *c, Command *cmd)
{
    AUTO_COMMAND next = { .dir = READ };

    add_entry(&next, DATA_BEGIN + 8 * MiB, 8192);
    set_cdb(&next, OP_READ_10, 900, 16);
    transfer(m, c, &next, 900);
}

/*
 * The chip has moved a part of what QEMU has read to memory, and goes on
 * after a migration.  Returns how many commands the device has seen then.
 */
static unsigned int migrate_between_parts(Machine *m, const Config *c,
                                          Command *cmd, uint32_t len)
{
    const uint32_t part = 5;
    unsigned int seen;

    add_entry(cmd, DATA_BEGIN, part);
    add_entry(cmd, DATA_BEGIN + part, len - part);
    cmd->pause = true;
    scramble_list(m, cmd);
    submit(m, c, cmd);
    lsi_wait_for(m, LSI_PAUSE);
    machine_migrate(m);
    seen = commands_seen();
    lsi_resume(m);
    finish(m, c, cmd);
    return commands_seen() - seen;
}

/* The rest migrates, and is not read again. */
static void migrate_rest(Machine *m, const Config *c, Command *cmd,
                         const uint8_t *want, uint32_t len)
{
    g_assert_cmpuint(migrate_between_parts(m, c, cmd, len), ==, 0);
    g_assert_cmphex(cmd->status, ==, SCSI_GOOD);
    g_assert_true(!memcmp(ram + DATA_BEGIN, want, len));
    test_end(m);
    discard();
}

static void test_migrate_reply(const void *data)
{
    const Config *c = data;
    const uint8_t inquiry[6] = { OP_INQUIRY, [4] = 36 };
    AUTO_COMMAND whole = { .dir = READ, .cdb_len = sizeof(inquiry) };
    AUTO_COMMAND parts = { .dir = READ, .cdb_len = sizeof(inquiry) };
    Machine *m = begin(c);
    uint8_t want[36];

    memcpy(whole.cdb, inquiry, sizeof(inquiry));
    memcpy(parts.cdb, inquiry, sizeof(inquiry));
    add_entry(&whole, DATA_BEGIN, sizeof(want));
    run(m, c, &whole);
    g_assert_cmphex(whole.status, ==, SCSI_GOOD);
    memcpy(want, ram + DATA_BEGIN, sizeof(want));
    migrate_rest(m, c, &parts, want, sizeof(want));
}

static void test_migrate_blocks(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);
    uint8_t want[16 * SECTOR];

    disk_read(850 * SECTOR, want, sizeof(want));
    set_cdb(&cmd, OP_READ_10, 850, 16);
    migrate_rest(m, c, &cmd, want, sizeof(want));
}

/* What cannot be migrated ends with an error. */
static void migrate_and_lose(Machine *m, const Config *c, Command *cmd,
                             uint32_t blocks)
{
    set_cdb(cmd, OP_READ_10, 850, blocks);
    migrate_between_parts(m, c, cmd, blocks * SECTOR);
    g_assert_cmphex(cmd->status, ==, SCSI_CHECK_CONDITION);
    g_assert_cmphex(cmd->sense, ==, IO_PROCESS_TERMINATED);
    expect_end(m, c, cmd);
    test_end(m);
    discard();
}

static void test_migrate_large(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };

    migrate_and_lose(begin(c), c, &cmd, 64 * KiB / SECTOR + 1);
}

/* The device says that there is an error, but not that there is no data. */
static void test_migrate_error(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);

    inject("2 -1 28 0 0 2 3 11 1");
    migrate_and_lose(m, c, &cmd, 16);
}

/* Abort a command while its ioctl runs */
static void test_abort(const void *data)
{
    const Config *c = data;
    Machine *m = begin(c);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        AUTO_COMMAND cmd = { .dir = dir };
        unsigned int seen;

        add_entry(&cmd, DATA_BEGIN, 4 * limit);
        set_cdb(&cmd, dir == READ ? OP_READ_10 : OP_WRITE_10, 800,
                cmd.bytes / SECTOR);
        set_delay(SLOW_US);
        seen = commands_seen();
        submit(m, c, &cmd);
        while (commands_seen() == seen) {
            g_usleep(1000);
        }
        switch (c->hba) {
        case VIRTIO:
            g_assert_cmphex(virtio_scsi_tmf(m, &virtio,
                                VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET),
                            ==, VIRTIO_SCSI_S_OK);
            finish(m, c, &cmd);
            g_assert_cmphex(cmd.response, ==, VIRTIO_SCSI_S_RESET);
            break;
        case MEGASAS:
            megasas_abort(m, FRAME, 0);
            region_accept(m, TABLE, FRAME, 64);
            break;
        case LSI:
            break;
        }
        /* The part that was in flight, and no other */
        g_assert_cmpuint(commands_seen() - seen, ==, 1);
        set_delay("0");
        if (c->hba == VIRTIO) {
            /* The reset's unit attention */
            AUTO_COMMAND tur = { .cdb_len = 6 };

            run(m, c, &tur);
            g_assert_cmphex(tur.status, ==, SCSI_CHECK_CONDITION);
        }
        expect_end(m, c, &cmd);
    }
    test_end(m);
}

/* Unplug the device while its ioctl runs */
static void test_unplug(const void *data)
{
    const Config *c = data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m = begin(c);
    unsigned int seen;

    add_entry(&cmd, DATA_BEGIN, 4 * limit);
    set_cdb(&cmd, OP_READ_10, 800, cmd.bytes / SECTOR);
    set_delay(SLOW_US);
    seen = commands_seen();
    submit(m, c, &cmd);
    while (commands_seen() == seen) {
        g_usleep(1000);
    }
    qtest_qmp_device_del(m->qts, "disk0");
    g_assert_cmpuint(commands_seen() - seen, ==, 1);
    set_delay("0");
    if (c->hba == MEGASAS) {
        megasas_wait(m, FRAME);
        region_accept(m, TABLE, FRAME, 64);
    }
    test_end(m);
    discard();
}

/* The device never answers; Linux gives up, and so does the guest's command */
static void test_timeout(const void *data)
{
    Config c = *(const Config *)data;
    AUTO_COMMAND cmd = { .dir = READ };
    Machine *m;

    c.options = "io_timeout=1";
    m = begin(&c);
    add_entry(&cmd, DATA_BEGIN, 4096);
    set_cdb(&cmd, OP_READ_10, 80, 8);
    inject("0 -1 28");
    run(m, &c, &cmd);
    inject("- 0 28");
    if (c.hba == VIRTIO) {
        g_assert_cmphex(cmd.response, ==, VIRTIO_SCSI_S_ABORTED);
    } else {
        g_assert_cmphex(cmd.status, ==, SCSI_CHECK_CONDITION);
        g_assert_cmphex(cmd.sense, ==, SENSE(KEY_ABORTED_COMMAND, 0x2e, 2));
    }
    transfer(m, &c, &cmd, 80);
    test_end(m);
    discard();
}

/* Tapes have records: what a command reads is one of them, or several */
static void test_tape(const void *data)
{
    Config c = *(const Config *)data;
    AUTO_COMMAND cmd = { .dir = READ };
    AUTO_COMMAND large = { .dir = READ };
    unsigned int seen;
    Machine *m;

    c.node = tape_node;
    m = begin(&c);
    /*
     * 0x20000 bytes; scsi_debug, which knows no more of tapes than their type,
     * takes it for 256 blocks from 0x200 on
     */
    add_entry(&cmd, DATA_BEGIN, 0x20000);
    set_cdb(&cmd, OP_READ_6, 0x200, 0);
    transfer(m, &c, &cmd, 0x200);

    /* More than Linux takes at once if it is not told to: still one command */
    add_entry(&large, DATA_BEGIN, 8 * MiB);
    set_cdb(&large, OP_READ_10, 0x200, large.bytes / SECTOR);
    seen = commands_seen_by(tape_node);
    run(m, &c, &large);
    g_assert_cmphex(large.response, ==, 0);
    g_assert_cmpuint(commands_seen_by(tape_node) - seen, <=, 1);
    test_end(m);
    discard();
}

static void test_cd(const void *data)
{
    Config c = *(const Config *)data;
    AUTO_COMMAND cmd = { .dir = READ };
    AUTO_COMMAND capacity = { .dir = READ };
    Machine *m;

    c.node = cd_node;
    m = begin(&c);
    /* Its blocks are as short as those of the disk: let QEMU know */
    add_entry(&capacity, DATA_BEGIN, 8);
    capacity.cdb[0] = OP_READ_CAPACITY_10;
    capacity.cdb_len = 10;
    run(m, &c, &capacity);
    g_assert_cmphex(capacity.status, ==, SCSI_GOOD);
    add_entry(&cmd, DATA_BEGIN, 3 * limit);
    set_cdb(&cmd, OP_READ_10, 200, cmd.bytes / SECTOR);
    transfer(m, &c, &cmd, 200);
    test_end(m);
    discard();
}

typedef struct Test {
    const char *name;
    void (*fn)(const void *config);
} Test;

static void add_tests(const char *group, const Config *c, const Test *tests)
{
    for (; tests->name; tests++) {
        g_autofree char *path = g_strdup_printf("sgio/%s/%s", group,
                                                tests->name);

        qtest_add_data_func(path, c, tests->fn);
    }
}

static bool find_devices(void)
{
    unsigned short sectors;
    void *p;
    uint32_t i;

    sg_node = getenv("SGIO_TEST_SG");
    disk_node = getenv("SGIO_TEST_DISK");
    tape_node = getenv("SGIO_TEST_TAPE");
    cd_node = getenv("SGIO_TEST_CD");
    patched = !getenv("SGIO_TEST_STOCK");
    if (!sg_node || !disk_node || !tape_node || !cd_node) {
        return false;
    }
    disk_fd = open(disk_node, O_RDWR | O_DIRECT);
    g_assert_cmpint(disk_fd, >=, 0);
    g_assert_cmpint(ioctl(disk_fd, BLKGETSIZE64, &disk_size), ==, 0);
    g_assert_cmpint(ioctl(disk_fd, BLKSECTGET, &sectors), ==, 0);
    limit = sectors * SECTOR;

    /* Each block has contents of its own */
    g_assert_cmpint(posix_memalign(&p, 4096, disk_size), ==, 0);
    for (i = 0; i < disk_size / 4; i++) {
        ((uint32_t *)p)[i] = (i ^ 0x5eed) * 2246822519u;
    }
    for (i = 0; i < disk_size; i += MiB) {
        g_assert_cmpint(pwrite(disk_fd, p + i, MiB, i), ==, MiB);
    }
    free(p);
    return true;
}

static void make_ram(void)
{
    int fd = g_file_open_tmp("sgio-test-XXXXXX", &ram_path, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, RAM_SIZE), ==, 0);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert_true(ram != MAP_FAILED);
    close(fd);
}

static void test_no_device(void)
{
    g_test_skip("SGIO_TEST_SG and SGIO_TEST_DISK name no devices; "
                "see dev/guest/sgio");
}

int main(int argc, char **argv)
{
    static const Test transfers[] = {
        { "read", test_read },
        { "write", test_write },
        { "cdb", test_cdb },
        { "list", test_list },
        { "status", test_status },
        { "abort", test_abort },
        { }
    };
    static const Test lsi_tests[] = {
        { "read", test_read },
        { "write", test_write },
        { "cdb", test_cdb },
        { "list", test_list },
        { "status", test_status },
        { }
    };
    static const Test generic[] = {
        { "verify", test_verify },
        { "absurd", test_absurd },
        { "out-of-range", test_out_of_range },
        { "medium-error", test_medium_error },
        { "recovered-error", test_recovered_error },
        { "tiny-reply", test_tiny_reply },
        { "max-bounce", test_max_bounce },
        { "timeout", test_timeout },
        { "unplug", test_unplug },
        { "tape", test_tape },
        { "cd", test_cd },
        { }
    };
    static const Test lsi_generic_tests[] = {
        { "migrate/reply", test_migrate_reply },
        { "migrate/blocks", test_migrate_blocks },
        { "migrate/large", test_migrate_large },
        { "migrate/error", test_migrate_error },
        { }
    };
    static const Test residuals[] = {
        { "short-transfer", test_short_transfer },
        { "short-reply", test_short_reply },
        { }
    };
    int ret;

    g_test_init(&argc, &argv, NULL);

    if (!find_devices()) {
        qtest_add_func("sgio/none", test_no_device);
        return g_test_run();
    }
    make_ram();

    Config virtio_generic = { VIRTIO, "scsi-generic", sg_node };
    Config virtio_block = { VIRTIO, "scsi-block", disk_node };
    Config megasas_generic = { MEGASAS, "scsi-generic", sg_node };
    Config lsi_generic = { LSI, "scsi-generic", sg_node };
    Config lsi_block = { LSI, "scsi-block", disk_node };
    Config megasas_block = { MEGASAS, "scsi-block", disk_node };

    add_tests("virtio/generic", &virtio_generic, transfers);
    add_tests("virtio/generic", &virtio_generic, residuals);
    add_tests("virtio/block", &virtio_block, transfers);
    add_tests("megasas/block", &megasas_block, transfers);
    add_tests("lsi/generic", &lsi_generic, lsi_tests);
    add_tests("lsi/generic", &lsi_generic, lsi_generic_tests);
    add_tests("lsi/block", &lsi_block, lsi_tests);
    add_tests("megasas/generic", &megasas_generic, transfers);
    add_tests("megasas/generic", &megasas_generic, generic);

    ret = test_run();
    unlink(ram_path);
    g_free(ram_path);
    return ret;
}
