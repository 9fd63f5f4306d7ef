/*
 * CD-ROM drives: reading by DMA, on the PIIX3 of a pc and the AHCI of a q35
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "ahci-dma-util.h"
#include "ide-dma-util.h"
#include "qobject/qdict.h"

/* MMC-6: commands that read, and some that tell of the drive */
#define MMC_TEST_UNIT_READY     0x00
#define MMC_REQUEST_SENSE       0x03
#define MMC_READ_12             0xa8
#define MMC_READ_CD             0xbe
#define   READ_CD_USER_DATA     0x10
#define   READ_CD_ALL           0xf8

/* Sense keys, and additional sense codes */
#define NOT_READY               0x02
#define ILLEGAL_REQUEST         0x05
#define UNIT_ATTENTION          0x06
#define ASC_LBA_OUT_OF_RANGE    0x21
#define ASC_INVALID_FIELD       0x24
#define ASC_MEDIUM_CHANGED      0x28
#define ASC_MEDIUM_NOT_PRESENT  0x3a
#define SENSE_SIZE              18
#define SENSE_KEY               2
#define SENSE_ASC               12

/* A raw sector, mode 1: synchronization, address and mode; data; parity */
#define RAW_SECTOR              2352
#define RAW_DATA                16

#define ATA_DEVICE_RESET        0x08
#define ATA_INT_REASON_DONE     0x03            /* command, to the host */

/* Sectors of the medium, and where the tests read it */
#define CD_SECTORS              1280
#define LBA                     100
#define CHUNK                   64              /* what the buffer holds */

#define INJECT                  ",file.inject-error.0."
#define READ_ERROR(sector)      INJECT "event=none" INJECT "iotype=read" \
                                INJECT "errno=5" INJECT "sector=" #sector
#define ONCE                    INJECT "once=on"
#define DELAY_500MS             INJECT "event=none" INJECT "iotype=read" \
                                INJECT "errno=0" \
                                INJECT "delay-ns=500000000"

/* What became of a command */
typedef struct Outcome {
    bool error;                 /* CHECK CONDITION */
    bool overflow;              /* as AHCI reports it */
} Outcome;

typedef struct Hba {
    const char *name;
    const char *machine;
    int devfn;
    int bar;
    bool q35;

    /* Make the controller ready, for the first time or after a reset */
    void (*start)(Machine *m);
    /* Start a packet command with this list */
    void (*submit)(Machine *m, const uint8_t *packet, const GArray *list);
    /* Is the drive busy, or not done with a reset? */
    bool (*busy)(Machine *m);
    /* Wait for the end of a command */
    Outcome (*finish)(Machine *m);
} Hba;

/* The command that the drive executes, or did */
static Request req;

/* Bus master IDE: the CD-ROM drive is the first one of the second channel */

static void bmdma_start(Machine *m)
{
}

static void bmdma_submit(Machine *m, const uint8_t *packet, const GArray *list)
{
    const TablePlace table = { .kind = TABLE };

    if (list) {
        bmi_prepare(m, SECONDARY, READ, list, &table);
    }
    ide_send_packet(m, SECONDARY, 0, list ? ATAPI_DMA : 0, packet);
    if (list) {
        bmi_start(m, SECONDARY, READ);
    }
}

static bool bmdma_busy(Machine *m)
{
    return ata_readb(m, SECONDARY, ATA_STATUS) & ATA_STATUS_BSY;
}

static Outcome bmdma_finish(Machine *m)
{
    int64_t deadline = patience_ends();
    Outcome outcome = { };

    /* A tray that opens interrupts, too */
    while (qtest_inb(m->qts, ide_channel[SECONDARY].control_block) &
           ATA_STATUS_BSY ||
           !qtest_get_irq(m->qts, ide_channel[SECONDARY].irq)) {
        wait_before_poll(deadline, "interrupt");
    }
    outcome.error = ata_readb(m, SECONDARY, ATA_STATUS) & ATA_STATUS_ERR;
    g_assert_cmphex(ata_readb(m, SECONDARY, ATA_STATUS) &
                    (ATA_STATUS_BSY | ATA_STATUS_DRQ), ==, 0);
    g_assert_cmphex(ata_readb(m, SECONDARY, ATA_SECTOR_COUNT) & 7, ==,
                    ATA_INT_REASON_DONE);
    if (!outcome.error) {
        g_assert_cmphex(bmi_readb(m, SECONDARY, BMIS) & BMIS_ACTIVE, ==, 0);
    }
    acknowledge(m, SECONDARY);
    return outcome;
}

/* AHCI */

static void ahci_start(Machine *m)
{
    port_start(m);
    ahci_accept(m);
}

static void ahci_submit(Machine *m, const uint8_t *packet, const GArray *list)
{
    AhciCommand cmd = ahci_packet_command(0, packet, list);

    ahci_issue(m, &cmd);
}

static Outcome ahci_finish(Machine *m)
{
    int64_t deadline = patience_ends();
    Outcome outcome;

    while (hba_readl(m, P0CI) & 1 && !(hba_readl(m, P0IS) & PXIS_TFES)) {
        wait_before_poll(deadline, "end of command");
    }
    outcome.error = hba_readl(m, P0TFD) & PXTFD_ERR;
    outcome.overflow = hba_readl(m, P0IS) & PXIS_OFS;
    if (outcome.error) {
        /* The port stands still: AHCI 1.3.1, section 6.2.2.1 */
        port_stop(m);
        port_start(m);
    }
    ahci_accept(m);
    return outcome;
}

static const Hba hbas[] = {
    {
        .name = "bmdma",
        .machine = "-device ide-cd,bus=ide.1,drive=drive0,id=disk0",
        .devfn = PIIX3_IDE_DEVFN,
        .bar = PIIX3_IDE_BMIBA,
        .start = bmdma_start,
        .submit = bmdma_submit,
        .busy = bmdma_busy,
        .finish = bmdma_finish,
    }, {
        .name = "ahci",
        .machine = "-device ide-cd,bus=ide.0,drive=drive0,id=disk0",
        .devfn = ICH9_AHCI_DEVFN,
        .bar = AHCI_ABAR,
        .q35 = true,
        .start = ahci_start,
        .submit = ahci_submit,
        .busy = ahci_busy,
        .finish = ahci_finish,
    }
};

/* Tests */

/* How a test reads, and from what */
typedef struct CdTest {
    const Hba *hba;
    uint8_t command;
    bool raw;
    uint32_t sectors;
    const char *options;        /* of ide-cd, ",key=value" */
    const char *drive;          /* of its drive, the same */
    const char *machine;        /* of the machine, "-option ..." */
    const char *list;
    void (*give_up)(Machine *m);
} CdTest;

static Machine *cd_begin(const CdTest *t)
{
    g_autofree char *machine = g_strdup_printf("%s%s %s", t->hba->machine,
                                               t->options ?: "",
                                               t->machine ?: "");
    g_autofree char *drive = g_strdup_printf(",readonly=on%s", t->drive ?: "");
    uint32_t bytes = t->sectors * (t->raw ? RAW_SECTOR : CD_SECTOR);
    /* A machine keeps its setup, and is compared with the next one's */
    Setup setup = {
        .machine = g_intern_string(machine),
        .drive[0] = g_intern_string(drive),
        .disks = 1,
        .hba_devfn = t->hba->devfn,
        .hba_bar = t->hba->bar,
        .q35 = t->hba->q35,
        .disk_size = CD_SECTORS * CD_SECTOR,
        .ram_size = bytes > 160 * KiB ? 3 * MiB : 0,
    };
    Machine *m = test_begin(&setup);

    t->hba->start(m);
    return m;
}

static void cd_end(Machine *m)
{
    request_free(&req);
    test_end(m);
}

static void cd_packet(uint8_t *packet, const CdTest *t, uint32_t lba,
                      uint32_t sectors)
{
    memset(packet, 0, MMC_PACKET_SIZE);
    packet[0] = t->command ?: MMC_READ_10;
    stl_be_p(&packet[2], lba);
    switch (packet[0]) {
    case MMC_READ_10:
        stw_be_p(&packet[7], sectors);
        break;
    case MMC_READ_12:
        stl_be_p(&packet[6], sectors);
        break;
    case MMC_READ_CD:
        g_assert_cmpuint(sectors >> 24, ==, 0);
        packet[6] = sectors >> 16;
        stw_be_p(&packet[7], sectors);
        packet[9] = t->raw ? READ_CD_ALL : READ_CD_USER_DATA;
        break;
    }
}

/* Memory for @bytes, in pieces that are not sectors of the CD */
static char *cd_list(uint32_t bytes)
{
    const uint32_t piece = 8190;

    if (bytes <= piece) {
        return g_strdup_printf("r%u", bytes);
    }
    /* There is always a rest: no read of these tests is that long */
    return g_strdup_printf("%uxr%u+r%u", bytes / piece, piece, bytes % piece);
}

/* Start to read @sectors; @list is where to, if not to as much as that takes */
static void cd_submit(Machine *m, const CdTest *t, uint32_t lba,
                      uint32_t sectors, const char *list)
{
    uint32_t bytes = sectors * (t->raw ? RAW_SECTOR : CD_SECTOR);
    g_autofree char *fitting = cd_list(bytes);
    uint8_t packet[MMC_PACKET_SIZE];

    request_free(&req);
    request_init(m, &req, READ, 0, lba * CD_SECTOR, sectors * CD_SECTOR,
                 list ?: fitting);
    cd_packet(packet, t, lba, sectors);
    t->hba->submit(m, packet, req.list);
}

static void lba_to_msf(uint8_t *msf, uint32_t lba)
{
    /* Two seconds of 75 sectors come before the first one */
    lba += 150;
    msf[0] = lba / 75 / 60;
    msf[1] = lba / 75 % 60;
    msf[2] = lba % 75;
}

static void expect_raw(Machine *m, uint32_t lba, uint32_t sectors)
{
    g_autofree uint8_t *raw = g_malloc0(sectors * RAW_SECTOR);
    uint32_t i;

    for (i = 0; i < sectors; i++) {
        uint8_t *sector = raw + i * RAW_SECTOR;

        memset(sector + 1, 0xff, 10);
        lba_to_msf(sector + 12, lba + i);
        sector[15] = 1;
        memcpy(sector + RAW_DATA, m->image[0] + (lba + i) * CD_SECTOR,
               CD_SECTOR);
    }
    expect_data(m, &req, raw, sectors * RAW_SECTOR);
}

static void cd_finish_well(Machine *m, const CdTest *t)
{
    Outcome outcome = t->hba->finish(m);

    g_assert_false(outcome.error);
    g_assert_false(outcome.overflow);
    if (t->raw) {
        expect_raw(m, req.start / CD_SECTOR, req.bytes / CD_SECTOR);
    } else {
        expect_transfer(m, &req, req.bytes);
    }
    if (t->hba->q35) {
        g_assert_cmpuint(ahci_transferred(m), ==,
                         MIN(req.list_bytes, req.bytes / CD_SECTOR *
                             (t->raw ? RAW_SECTOR : CD_SECTOR)));
    }
}

static void cd_read(Machine *m, const CdTest *t, uint32_t lba,
                    uint32_t sectors)
{
    cd_submit(m, t, lba, sectors, NULL);
    cd_finish_well(m, t);
}

/* The command fails, and the drive says why */
static void cd_finish_badly(Machine *m, const CdTest *t, int key, int asc)
{
    uint8_t packet[MMC_PACKET_SIZE] = {
        MMC_REQUEST_SENSE, 0, 0, 0, SENSE_SIZE
    };
    uint8_t sense[SENSE_SIZE];
    const Entry *e;
    Outcome outcome = t->hba->finish(m);

    g_assert_true(outcome.error);
    request_free(&req);
    request_init(m, &req, READ, 0, 0, SECTOR, "r18");
    t->hba->submit(m, packet, req.list);
    outcome = t->hba->finish(m);
    g_assert_false(outcome.error);

    e = &g_array_index(req.list, Entry, 0);
    region_accept(m, e->kind, e->offset, e->len);
    qtest_bufread(m->qts, entry_address(m, e), sense, sizeof(sense));
    g_assert_cmphex(sense[SENSE_KEY], ==, key);
    g_assert_cmphex(sense[SENSE_ASC], ==, asc);
}

/* Bytes that QEMU has read straight into guest memory since it was started */
static int64_t direct_bytes(Machine *m)
{
    QDict *reply = qtest_qmp_assert_success_ref(m->qts,
        "{ 'execute': 'x-query-dma' }");
    int64_t bytes = qdict_get_int(reply, "bytes-direct");

    qobject_unref(reply);
    return bytes;
}

static bool reads_directly(Machine *m, const CdTest *t)
{
    int64_t before = direct_bytes(m), done;

    cd_read(m, t, LBA, 2);
    done = direct_bytes(m) - before;
    g_assert(done == 0 || done == 2 * CD_SECTOR);
    return done;
}

static void test_read(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_read(m, t, LBA, t->sectors);
    /* The same once more: nothing is left over */
    cd_read(m, t, LBA + 1, t->sectors);
    cd_end(m);
}

/* The list is not a list of sectors, or not of RAM, or too long */
static void test_list(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_submit(m, t, LBA, t->sectors, t->list);
    cd_finish_well(m, t);
    assert_everything(m);
    cd_read(m, t, LBA, 3);
    cd_end(m);
}

/*
 * The list is too short.  A parallel drive waits until its data is fetched; a
 * serial one sends it all, and AHCI reports an overflow.
 */
static void test_short_list(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_submit(m, t, LBA, t->sectors, t->list);
    if (t->hba->q35) {
        Outcome outcome = t->hba->finish(m);

        g_assert_false(outcome.error);
        g_assert_true(outcome.overflow);
        g_assert_cmpuint(ahci_transferred(m), ==, req.list_bytes);
    } else {
        g_assert_cmphex(wait_until_idle(m, SECONDARY), ==, 0);
        g_assert_true(bmdma_busy(m));
        g_assert_false(qtest_get_irq(m->qts, ide_channel[SECONDARY].irq));
        bmi_writeb(m, SECONDARY, BMIC, 0);
        ata_writeb(m, SECONDARY, ATA_COMMAND, ATA_DEVICE_RESET);
        g_assert_false(bmdma_busy(m));
    }
    expect_transfer(m, &req, req.list_bytes);
    assert_everything(m);
    cd_read(m, t, LBA, 3);
    cd_end(m);
}

/* A command that is refused, and reads nothing */
static void cd_fail(Machine *m, const CdTest *t, uint32_t lba,
                    uint32_t sectors, int key, int asc)
{
    uint8_t packet[MMC_PACKET_SIZE];

    request_free(&req);
    request_init(m, &req, READ, 0, 0, 2 * CD_SECTOR, "r4096");
    cd_packet(packet, t, lba, sectors);
    t->hba->submit(m, packet, req.list);
    cd_finish_badly(m, t, key, asc);
    assert_everything(m);
}

/* The guest is told twice: that the old one is gone, and of a new one */
static void see_new_medium(Machine *m, const CdTest *t)
{
    uint8_t ready[MMC_PACKET_SIZE] = { MMC_TEST_UNIT_READY };

    t->hba->submit(m, ready, NULL);
    cd_finish_badly(m, t, NOT_READY, ASC_MEDIUM_NOT_PRESENT);
    t->hba->submit(m, ready, NULL);
    cd_finish_badly(m, t, UNIT_ATTENTION, ASC_MEDIUM_CHANGED);
}

/* Nothing behind the end of the medium is read, nor anything before it */
static void test_end_of_medium(const void *data)
{
    static const uint32_t lba[] = { CD_SECTORS - 1, CD_SECTORS, UINT32_MAX };
    const CdTest *t = data;
    Machine *m = cd_begin(t);
    int i;

    cd_read(m, t, CD_SECTORS - 1, 1);
    cd_read(m, t, CD_SECTORS - 65, 65);
    assert_everything(m);

    for (i = 0; i < ARRAY_SIZE(lba); i++) {
        cd_fail(m, t, lba[i], 2, ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
    }
    cd_end(m);
}

/* The LBA and the number of sectors are less than the medium only in sum */
static void test_wrap_around(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_fail(m, t, LBA, UINT32_MAX - 10, ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
    cd_end(m);
}

/* More than QEMU can count */
static void test_too_long(const void *data)
{
    CdTest t = *(const CdTest *)data;
    Machine *m = cd_begin(&t);

    qtest_qmp_assert_success(m->qts, "{ 'execute': 'blockdev-add',"
                             " 'arguments': { 'driver': 'null-co',"
                             "                'node-name': 'big',"
                             "                'read-only': true,"
                             "                'size': %lld } }",
                             (long long)(8 * GiB));
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'blockdev-open-tray',"
                             " 'arguments': { 'id': 'disk0' } }");
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'blockdev-remove-medium',"
                             " 'arguments': { 'id': 'disk0' } }");
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'blockdev-insert-medium',"
                             " 'arguments': { 'id': 'disk0',"
                             "                'node-name': 'big' } }");
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'blockdev-close-tray',"
                             " 'arguments': { 'id': 'disk0' } }");
    see_new_medium(m, &t);
    cd_fail(m, &t, LBA, 2 * GiB / CD_SECTOR, ILLEGAL_REQUEST,
            ASC_INVALID_FIELD);
    cd_fail(m, &t, LBA, 2 * GiB / CD_SECTOR + 1, ILLEGAL_REQUEST,
            ASC_INVALID_FIELD);
    cd_end(m);
    machine_discard();
}

/* A read error is the guest's to know of */
static void test_error(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_submit(m, t, LBA, t->sectors, NULL);
    cd_finish_badly(m, t, ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
    /* What comes before the error may have been read */
    region_accept(m, RAM, 0, m->region[RAM].size);
    cd_read(m, t, LBA, 1);
    cd_end(m);
}

static void wait_for_stop(Machine *m)
{
    qtest_qmp_eventwait(m->qts, "STOP");
}

static void cont(Machine *m)
{
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
}

/* A machine that has stopped at an error tries again when it goes on */
static void test_error_stop(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_submit(m, t, LBA, t->sectors, NULL);
    wait_for_stop(m);
    cont(m);
    cd_finish_well(m, t);
    cd_read(m, t, LBA, 1);
    cd_end(m);
    /* It fails only once */
    machine_discard();
}

/* It may do so elsewhere */
static void test_migrate(const void *data)
{
    CdTest t = *(const CdTest *)data;
    g_autofree char *dir = g_dir_make_tmp("atapi-dma-test-XXXXXX", NULL);
    g_autofree char *stream = g_build_filename(dir, "stream", NULL);
    uint8_t *want[KINDS];
    Machine *m = cd_begin(&t);
    Request submitted;
    int kind;

    cd_submit(m, &t, LBA, t.sectors, NULL);
    wait_for_stop(m);
    migrate_to_file(m->qts, stream);
    for (kind = 0; kind < KINDS; kind++) {
        want[kind] = g_memdup2(m->region[kind].want, m->region[kind].size);
    }
    submitted = req;
    req = (Request) { };

    t.drive = NULL;
    t.machine = "-incoming defer";
    m = cd_begin(&t);
    migrate_from_file(m->qts, stream, "completed");
    unlink(stream);
    rmdir(dir);
    for (kind = 0; kind < KINDS; kind++) {
        memcpy(m->region[kind].want, want[kind], m->region[kind].size);
        g_free(want[kind]);
    }

    cont(m);
    req = submitted;
    cd_finish_well(m, &t);
    cd_read(m, &t, LBA, 1);
    cd_end(m);
    machine_discard();
}

/* The medium is there when a read begins, and gone when it ends */
static void test_eject(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);
    uint8_t ready[MMC_PACKET_SIZE] = { MMC_TEST_UNIT_READY };

    cd_submit(m, t, LBA, t->sectors, NULL);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'eject', 'arguments': {"
                             " 'id': 'disk0', 'force': true } }");
    cd_finish_well(m, t);
    t->hba->submit(m, ready, NULL);
    cd_finish_badly(m, t, NOT_READY, ASC_MEDIUM_NOT_PRESENT);
    cd_end(m);
    machine_discard();
}

static void test_open_tray(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);
    uint8_t ready[MMC_PACKET_SIZE] = { MMC_TEST_UNIT_READY };

    cd_submit(m, t, LBA, t->sectors, NULL);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'blockdev-open-tray',"
                             " 'arguments': { 'id': 'disk0',"
                             "                'force': true } }");
    cd_finish_well(m, t);
    t->hba->submit(m, ready, NULL);
    cd_finish_badly(m, t, NOT_READY, ASC_MEDIUM_NOT_PRESENT);
    cd_end(m);
    machine_discard();
}

/* Another medium: the same sectors, each byte the other way round */
static void change_medium(Machine *m)
{
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("atapi-dma-test-XXXXXX", &name, NULL);
    uint32_t i;

    g_assert_cmpint(fd, >=, 0);
    for (i = 0; i < m->disk_size; i++) {
        m->image[0][i] ^= 0xff;
    }
    g_assert_cmpint(write(fd, m->image[0], m->disk_size), ==, m->disk_size);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'blockdev-change-medium',"
                             " 'arguments': { 'id': 'disk0', 'force': true,"
                             "                'filename': %s,"
                             "                'format': 'raw' } }", name);
    unlink(name);
    close(m->image_fd[0]);
    m->image_fd[0] = fd;
}

static void test_change_medium(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_submit(m, t, LBA, t->sectors, NULL);
    /* What is in flight still comes from the old one */
    expect_transfer(m, &req, req.bytes);
    change_medium(m);
    g_assert_false(t->hba->finish(m).error);
    assert_everything(m);
    see_new_medium(m, t);
    cd_read(m, t, LBA, t->sectors);
    cd_end(m);
    machine_discard();
}

/* Who does not ask for sense data is told again, by each command */
static void test_attention(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);
    uint8_t ready[MMC_PACKET_SIZE] = { MMC_TEST_UNIT_READY };
    int i;

    change_medium(m);
    t->hba->submit(m, ready, NULL);
    cd_finish_badly(m, t, NOT_READY, ASC_MEDIUM_NOT_PRESENT);
    for (i = 0; i < 3; i++) {
        t->hba->submit(m, ready, NULL);
        g_assert_true(t->hba->finish(m).error);
    }
    t->hba->submit(m, ready, NULL);
    cd_finish_badly(m, t, UNIT_ATTENTION, ASC_MEDIUM_CHANGED);
    cd_read(m, t, LBA, t->sectors);
    cd_end(m);
    machine_discard();
}

/* A guest that gives up */

static void bmdma_stop(Machine *m)
{
    bmi_writeb(m, SECONDARY, BMIC, 0);
}

static void bmdma_device_reset(Machine *m)
{
    bmdma_stop(m);
    ata_writeb(m, SECONDARY, ATA_COMMAND, ATA_DEVICE_RESET);
}

static void bmdma_software_reset(Machine *m)
{
    uint16_t control = ide_channel[SECONDARY].control_block;

    bmdma_stop(m);
    qtest_outb(m->qts, control, ATA_CONTROL_SRST);
    qtest_outb(m->qts, control, 0);
}

/* How long an answer may take: less than DELAY_500MS, on any machine */
static int qmp_limit_ms(void)
{
    double load;

    if (getloadavg(&load, 1) == 1 && load > g_get_num_processors()) {
        return 400;
    }
    return 100;
}

/* The main loop answers at once, whatever the drive waits for */
static void give_up(Machine *m, const CdTest *t)
{
    int64_t begun = g_get_monotonic_time(), ms;

    t->give_up(m);
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'query-status' }");
    ms = (g_get_monotonic_time() - begun) / 1000;
    g_assert_cmpint(ms, <, qmp_limit_ms());
}

static void wait_until_reset(Machine *m, const CdTest *t)
{
    int64_t deadline = patience_ends();

    while (t->hba->busy(m)) {
        wait_before_poll(deadline, "end of reset");
    }
    if (t->hba->q35) {
        port_stop(m);
    } else {
        ata_readb(m, SECONDARY, ATA_STATUS);
        acknowledge(m, SECONDARY);
    }
    t->hba->start(m);
}

static void cd_suspend(Machine *m, const CdTest *t)
{
    blkdebug(m, 0, "break read_aio A");
    cd_submit(m, t, LBA, t->sectors, NULL);
}

static void cd_resume(Machine *m)
{
    blkdebug(m, 0, "resume A");
}

/*
 * The host has guest memory in its hands: the drive is busy until it has not.
 */
static void test_give_up_direct(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_suspend(m, t);
    give_up(m, t);
    g_assert_true(t->hba->busy(m));
    cd_resume(m);
    wait_until_reset(m, t);
    expect_transfer(m, &req, req.bytes);
    assert_everything(m);
    cd_read(m, t, LBA, 3);
    cd_end(m);
}

/* It does not give up only once */
static void test_give_up_twice(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_suspend(m, t);
    give_up(m, t);
    give_up(m, t);
    g_assert_true(t->hba->busy(m));
    cd_resume(m);
    wait_until_reset(m, t);
    expect_transfer(m, &req, req.bytes);
    assert_everything(m);
    cd_read(m, t, LBA, 3);
    cd_end(m);
}

/* A buffered read is nobody's business any more, and writes nothing */
static void give_up_buffered(Machine *m, const CdTest *t)
{
    cd_suspend(m, t);
    give_up(m, t);
    g_assert_false(t->hba->busy(m));
    wait_until_reset(m, t);
    cd_resume(m);
    assert_everything(m);
    cd_read(m, t, LBA, 3);
}

static void test_give_up_buffered(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    give_up_buffered(m, t);
    cd_end(m);
}

/* The host takes more than a second */
static void be_slow(Machine *m, const CdTest *t)
{
    cd_suspend(m, t);
    g_usleep(1.1 * G_USEC_PER_SEC);
    cd_resume(m);
    cd_finish_well(m, t);
}

static void test_give_up_slow(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    be_slow(m, t);
    give_up_buffered(m, t);
    cd_end(m);
    machine_discard();
}

/* qtest's clock stands still: a drive that is throttled waits for ever */
static void test_give_up_throttled(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);
    bool buffered = t->options;

    cd_read(m, t, LBA, CHUNK);
    cd_submit(m, t, LBA, CHUNK, NULL);
    give_up(m, t);
    g_assert_cmpint(t->hba->busy(m), !=, buffered);
    if (buffered) {
        wait_until_reset(m, t);
    }
    qtest_clock_step(m->qts, 5ll * 1000 * 1000 * 1000);
    if (!buffered) {
        wait_until_reset(m, t);
        expect_transfer(m, &req, req.bytes);
    }
    cd_read(m, t, LBA, 1);
    cd_end(m);
    machine_discard();
}

/* A guest that resets its drive has not met an error of it */
/* A command that waits for the machine to go on is not executed any more */
static void test_give_up_stopped(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    cd_submit(m, t, LBA, t->sectors, NULL);
    wait_for_stop(m);
    give_up(m, t);
    expect_partial_transfer(m, &req);
    cont(m);
    wait_until_reset(m, t);
    assert_everything(m);
    cd_read(m, t, LBA, 3);
    cd_end(m);
    machine_discard();
}

static void test_give_up_rerror_stop(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);
    QDict *reply;

    cd_suspend(m, t);
    give_up(m, t);
    cd_resume(m);
    wait_until_reset(m, t);
    region_accept(m, RAM, 0, m->region[RAM].size);
    reply = qtest_qmp_assert_success_ref(m->qts,
                                         "{ 'execute': 'query-status' }");
    g_assert_true(qdict_get_bool(reply, "running"));
    qobject_unref(reply);
    cd_read(m, t, LBA, 3);
    cd_end(m);
}

/* The property */

static void test_auto(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    g_assert_true(reads_directly(m, t));
    be_slow(m, t);
    g_assert_false(reads_directly(m, t));
    change_medium(m);
    see_new_medium(m, t);
    g_assert_true(reads_directly(m, t));
    cd_end(m);
    machine_discard();
}

static void test_direct(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    be_slow(m, t);
    g_assert_true(reads_directly(m, t));
    cd_end(m);
}

static void test_buffered(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);

    g_assert_false(reads_directly(m, t));
    cd_end(m);
}

static void test_qtree(const void *data)
{
    const CdTest *t = data;
    Machine *m = cd_begin(t);
    g_autofree char *qtree = qtest_hmp(m->qts, "info qtree");

    g_assert_nonnull(strstr(qtree, "dma = \"buffered\""));
    cd_end(m);
}

static void add(const char *group, const char *name, const CdTest *test,
                void (*func)(const void *))
{
    g_autofree char *path = g_strdup_printf("atapi-dma/%s/%s/%s",
                                            test->hba->name, group, name);

    qtest_add_data_func_full(path, g_memdup2(test, sizeof(*test)), func,
                             g_free);
}

static const struct {
    const char *name;
    uint8_t command;
    bool raw;
} read_commands[] = {
    { "read10", MMC_READ_10, false },
    { "read12", MMC_READ_12, false },
    { "read-cd", MMC_READ_CD, false },
    { "read-cd-raw", MMC_READ_CD, true },
};

static void add_read_test(const Hba *hba, bool buffered, uint32_t sectors)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(read_commands); i++) {
        g_autofree char *name = g_strdup_printf("%s/%u", read_commands[i].name,
                                                sectors);
        CdTest t = {
            .hba = hba,
            .command = read_commands[i].command,
            .raw = read_commands[i].raw,
            .sectors = sectors,
            /* Direct is the default, and stock QEMU has no property */
            .options = buffered ? ",dma=buffered" : NULL,
        };

        add(buffered ? "buffered" : "direct", name, &t, test_read);
    }
}

static void add_read_tests(const Hba *hba)
{
    static const uint32_t sectors[] = {
        1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 1024
    };
    int i, buffered;

    for (buffered = 0; buffered <= 1; buffered++) {
        for (i = 0; i < ARRAY_SIZE(sectors); i++) {
            add_read_test(hba, buffered, sectors[i]);
        }
    }
}

static void add_list_tests(const Hba *hba)
{
    static const struct {
        uint32_t sectors;
        const char *list;
    } lists[] = {
        { 1, "512xr4" },
        { 1, "m2048" },
        { 1, "r100+m1948" },
        { 4, "m8092+r100" },
        { 5, "r3000+m5000+r2240" },
        { 65, "r65536+r65536+m2048" },
        /* Longer than the command */
        { 1, "r2048+r2048" },
        { 1, "r4096" },
        { 2, "r100+r65536" },
        { 64, "r65536+r65534+r4" },
    }, short_lists[] = {
        { 1, "r512" },
        { 1, "r2046" },
        { 2, "r100" },
        { 4, "r4096+m2000" },
        { 64, "r65536" },
        { 130, "r65536+r65536+r1000" },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(lists); i++) {
        CdTest t = {
            .hba = hba,
            .sectors = lists[i].sectors,
            .list = lists[i].list,
        };

        add("list", t.list, &t, test_list);
    }
    for (i = 0; i < ARRAY_SIZE(short_lists); i++) {
        CdTest t = {
            .hba = hba,
            .sectors = short_lists[i].sectors,
            .list = short_lists[i].list,
        };

        add("short-list", t.list, &t, test_short_list);
    }
}

static void add_error_tests(const Hba *hba)
{
    /* The block layer's sector 460 is in the 16th of the CD from LBA on */
    static const char error[] = READ_ERROR(460);
    /* and this one is in the 100th */
    static const char late_error[] = READ_ERROR(796);
    static const struct {
        const char *name;
        uint32_t sectors;
        bool raw;
        const char *drive;
        const char *options;
    } tests[] = {
        { "direct", 32, false, error, "" },
        { "late", 200, false, late_error, "" },
        { "late-buffered", 200, false, late_error, ",dma=buffered" },
        { "raw", 32, true, error, "" },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *once = g_strconcat(tests[i].drive, ONCE, NULL);
        g_autofree char *stop = g_strconcat(tests[i].options, ",rerror=stop",
                                            NULL);
        CdTest t = {
            .hba = hba,
            .command = tests[i].raw ? MMC_READ_CD : 0,
            .raw = tests[i].raw,
            .sectors = tests[i].sectors,
            .options = tests[i].options,
            .drive = tests[i].drive,
        };

        add("error", tests[i].name, &t, test_error);
        t.drive = g_intern_string(once);
        t.options = g_intern_string(stop);
        add("error-stop", tests[i].name, &t, test_error_stop);
        add("migrate", tests[i].name, &t, test_migrate);
    }
}

static void add_medium_tests(const Hba *hba)
{
    CdTest t = { .hba = hba };

    add("medium", "end", &t, test_end_of_medium);
    t.command = MMC_READ_12;
    add("medium", "wrap-around", &t, test_wrap_around);
    add("medium", "too-long", &t, test_too_long);

    t = (CdTest) { .hba = hba, .sectors = 200, .drive = DELAY_500MS };
    add("medium", "eject", &t, test_eject);
    add("medium", "open-tray", &t, test_open_tray);
    add("medium", "change", &t, test_change_medium);
    t.drive = NULL;
    add("medium", "attention", &t, test_attention);
}

static void add_give_up_tests(const Hba *hba)
{
    static const struct {
        const char *name;
        const char *hba;
        void (*func)(Machine *m);
    } ways[] = {
        { "stop", "bmdma", bmdma_stop },
        { "device-reset", "bmdma", bmdma_device_reset },
        { "software-reset", "bmdma", bmdma_software_reset },
        { "stop", "ahci", ahci_stop },
        { "comreset", "ahci", ahci_comreset },
        { "hba-reset", "ahci", ahci_hba_reset },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(ways); i++) {
        CdTest t = {
            .hba = hba,
            .sectors = 10,
            .give_up = ways[i].func,
        };
        const char *name = ways[i].name;

        if (!g_str_equal(ways[i].hba, hba->name)) {
            continue;
        }
        add("give-up/direct", name, &t, test_give_up_direct);
        add("give-up/twice", name, &t, test_give_up_twice);
        t.options = ",rerror=stop";
        add("give-up/rerror-stop", name, &t, test_give_up_rerror_stop);
        t.options = ",dma=buffered";
        add("give-up/buffered", name, &t, test_give_up_buffered);
        t.options = ",dma=buffered,rerror=stop";
        add("give-up/buffered-rerror-stop", name, &t,
            test_give_up_rerror_stop);
        t.sectors = 20;
        t.drive = READ_ERROR(460) ONCE;
        add("give-up/buffered-stopped", name, &t, test_give_up_stopped);
        t.options = ",rerror=stop";
        add("give-up/stopped", name, &t, test_give_up_stopped);
        t.sectors = 10;
        t.options = t.drive = NULL;
        add("give-up/slow", name, &t, test_give_up_slow);
        t.drive = ",throttling.bps-read=65536";
        add("give-up/throttled", name, &t, test_give_up_throttled);
        t.options = ",dma=buffered";
        add("give-up/throttled-buffered", name, &t, test_give_up_throttled);
    }
}

static void add_property_tests(const Hba *hba)
{
    CdTest t = { .hba = hba, .sectors = 3 };

    add("property", "auto", &t, test_auto);
    t.options = ",dma=direct";
    add("property", "direct", &t, test_direct);
    t.options = ",dma=buffered";
    add("property", "buffered", &t, test_buffered);
    add("property", "qtree", &t, test_qtree);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(hbas); i++) {
        add_read_tests(&hbas[i]);
        add_list_tests(&hbas[i]);
        add_error_tests(&hbas[i]);
        add_medium_tests(&hbas[i]);
        add_give_up_tests(&hbas[i]);
        add_property_tests(&hbas[i]);
    }
    return test_run();
}
