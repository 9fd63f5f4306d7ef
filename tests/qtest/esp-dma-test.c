/*
 * ESP (NCR53C9x): DMA of the data phase, in one TI command or in many
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same on three controllers: Am53C974 and DC-390 in a PC, whose DMA engine
 * takes physical addresses or a list of pages, and the ESP of a SPARCstation 5
 * behind its DMA controller and IOMMU.  What the guest sees must not depend on
 * how QEMU moves the data; x-query-dma tells how it did, if there is one.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "dma-test-util.h"
#include "esp-regs.h"
#include "libqos/pci-pc.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"

#define AMD_DEVFN               QPCI_DEVFN(5, 0)

/* SPARCstation 5 */
#define SS5_IOMMU               0x10000000
#define   IOMMU_CTRL            0x0000
#define     IOMMU_ENABLE        0x00000001
#define     IOMMU_RANGE_64M     0x00000008      /* from 0xfc000000 on */
#define   IOMMU_BASE            0x0004          /* of the table, >> 4 */
#define   IOMMU_AFSR            0x1000
#define     IOMMU_AFSR_ERROR    0x80000000
#define   IOMMU_AFAR            0x1004
#define IOPTE_WRITE             0x4
#define IOPTE_VALID             0x2
#define SS5_ESPDMA              0x78400000
#define   ESPDMA_CSR            0x0
#define     ESPDMA_INTR_ENABLE  0x010
#define     ESPDMA_RESET        0x080
#define     ESPDMA_TO_MEMORY    0x100
#define     ESPDMA_ENABLE       0x200
#define   ESPDMA_ADDR           0x4
#define SS5_ESP                 0x78800000
#define DVMA_BASE               0xfc000000
#define DVMA_TABLE              (1 * MiB)       /* where the test puts it */

#define SCSI_READ_10            0x28
#define SCSI_WRITE_10           0x2a
#define SCSI_SYNC_CACHE_10      0x35
#define SCSI_WRITE_SAME_10      0x41
#define SCSI_REQUEST_SENSE      0x03
#define SCSI_INQUIRY            0x12
#define SCSI_REPORT_LUNS        0xa0
#define SCSI_GOOD               0x00
#define SCSI_CHECK_CONDITION    0x02
#define MSG_IDENTIFY            0x80

#define PAGE                    (4 * KiB)

/* The memory that data is moved to and from, in bus addresses ... */
#define WINDOW_PAGES            128
#define WINDOW_SIZE             (WINDOW_PAGES * PAGE)
/* ... and where its pages lie */
#define WINDOW_PHYS             (4 * MiB)

/* Somewhere in the middle, on no boundary but one of 32 bits */
#define ADDR                    (3 * PAGE + 0x234)

/* Each access to this sector fails, or takes a while */
#define BAD_SECTOR              40
#define INJECT                  ",file.inject-error.0."
#define BAD_DISK                INJECT "event=none" INJECT "sector=40" \
                                INJECT "errno=5"
#define BAD_ONCE                BAD_DISK INJECT "once=on"
#define BAD_FLUSH_ONCE          INJECT "event=none" INJECT "iotype=flush" \
                                INJECT "errno=5" INJECT "once=on"
#define SLOW_DISK               INJECT "event=none" INJECT "sector=40" \
                                INJECT "errno=0" INJECT "delay-ns=20000000"

/* The buffer of a SCSI disk */
#define SCSI_BUFFER             (128 * KiB)

typedef struct Board Board;

/* What a driver tells a DMA engine */
typedef struct DMA {
    Direction dir;
    uint32_t addr;
    uint32_t count;
    uint32_t mdl;               /* physical address of a page list, or 0 */
} DMA;

typedef struct BoardType {
    const char *name;
    const char *command_line;
    uint32_t window;            /* bus address */
    void (*start)(Board *b);
    void (*esp_write)(Board *b, int reg, uint8_t value);
    uint8_t (*esp_read)(Board *b, int reg);
    void (*dma_setup)(Board *b, const DMA *dma);
    void (*dma_go)(Board *b);
    void (*dma_stop)(Board *b);
    /* The registers after @moved bytes, with the ESP's interrupt pending */
    void (*dma_assert)(Board *b, uint32_t moved);
    void (*stop)(Board *b);
} BoardType;

struct Board {
    const BoardType *type;
    const char *drive;
    QTestState *qts;
    QPCIBus *pci;
    QPCIDevice *hba;
    QPCIBar bar;
    char *image;
    uint8_t *disk;              /* what the image shall hold */
    uint8_t *memory;            /* what the window shall hold */
    uint32_t frame[WINDOW_PAGES];
    DMA dma;
    bool has_tchi;              /* until it is written, it is the chip's ID */
    bool counts;                /* x-query-dma exists */
    QDict *before;              /* what it said at the beginning */
};

typedef struct Interrupt {
    uint8_t phase;
    bool tc;
    uint8_t intr;
    uint32_t count;
} Interrupt;

/* Am53C974, DC-390 */

static void amd_start(Board *b)
{
    b->pci = qpci_new_pc(b->qts, NULL);
    b->hba = qpci_device_find(b->pci, AMD_DEVFN);
    g_assert_nonnull(b->hba);
    b->bar = qpci_iomap(b->hba, 0, NULL);
    qpci_device_enable(b->hba);
    qpci_io_writel(b->hba, b->bar, AMD_SBAC, AMD_SBAC_STATUS);
}

static void amd_stop(Board *b)
{
    g_free(b->hba);
    qpci_free_pc(b->pci);
}

static void amd_esp_write(Board *b, int reg, uint8_t value)
{
    qpci_io_writeb(b->hba, b->bar, reg * 4, value);
}

static uint8_t amd_esp_read(Board *b, int reg)
{
    return qpci_io_readb(b->hba, b->bar, reg * 4);
}

static uint8_t amd_command(Board *b, uint8_t command)
{
    return command | (b->dma.dir == READ ? AMD_DIR_IN : 0) |
           (b->dma.mdl ? AMD_MDL : 0);
}

static void amd_dma_setup(Board *b, const DMA *dma)
{
    b->dma = *dma;
    qpci_io_writel(b->hba, b->bar, AMD_DMA_CMD, amd_command(b, AMD_IDLE));
    qpci_io_writel(b->hba, b->bar, AMD_DMA_STC, dma->count);
    qpci_io_writel(b->hba, b->bar, AMD_DMA_SPA,
                   dma->mdl ? dma->addr % PAGE : dma->addr);
    qpci_io_writel(b->hba, b->bar, AMD_DMA_SMDLA, dma->mdl);
}

static void amd_dma_go(Board *b)
{
    qpci_io_writel(b->hba, b->bar, AMD_DMA_CMD, amd_command(b, AMD_START));
}

static void amd_dma_stop(Board *b)
{
    qpci_io_writel(b->hba, b->bar, AMD_DMA_CMD, amd_command(b, AMD_IDLE));
}

static uint32_t amd_readl(Board *b, int reg)
{
    return qpci_io_readl(b->hba, b->bar, reg);
}

static void amd_dma_assert(Board *b, uint32_t moved)
{
    uint32_t left = b->dma.count - moved;

    g_assert_cmphex(amd_readl(b, AMD_DMA_WBC), ==, left);
    if (!b->dma.mdl) {
        g_assert_cmphex(amd_readl(b, AMD_DMA_WAC), ==, b->dma.addr + moved);
    }
    g_assert_cmphex(amd_readl(b, AMD_DMA_STATUS), ==,
                    AMD_SCSIINT | (left ? 0 : AMD_DONE));
}

/* SPARCstation 5 */

static void ss5_map(Board *b, int page, uint32_t entry)
{
    qtest_writel(b->qts, DVMA_TABLE + 4 * page, entry);
}

static uint32_t iopte(uint32_t frame)
{
    return frame >> 4 | IOPTE_WRITE | IOPTE_VALID;
}

static void ss5_start(Board *b)
{
    int i;

    /* Each page of the window is the neighbour of none of its neighbours. */
    for (i = 0; i < WINDOW_PAGES; i++) {
        b->frame[i] = WINDOW_PHYS + i * 37 % WINDOW_PAGES * PAGE;
        ss5_map(b, i, iopte(b->frame[i]));
    }
    qtest_writel(b->qts, SS5_IOMMU + IOMMU_BASE, DVMA_TABLE >> 4);
    qtest_writel(b->qts, SS5_IOMMU + IOMMU_CTRL,
                 IOMMU_RANGE_64M | IOMMU_ENABLE);
}

static void ss5_stop(Board *b)
{
}

static void ss5_esp_write(Board *b, int reg, uint8_t value)
{
    qtest_writeb(b->qts, SS5_ESP + reg * 4, value);
}

static uint8_t ss5_esp_read(Board *b, int reg)
{
    return qtest_readb(b->qts, SS5_ESP + reg * 4);
}

static void ss5_dma_setup(Board *b, const DMA *dma)
{
    b->dma = *dma;
    qtest_writel(b->qts, SS5_ESPDMA + ESPDMA_CSR,
                 ESPDMA_ENABLE | ESPDMA_INTR_ENABLE |
                 (dma->dir == READ ? ESPDMA_TO_MEMORY : 0));
    qtest_writel(b->qts, SS5_ESPDMA + ESPDMA_ADDR, dma->addr);
}

static void ss5_dma_go(Board *b)
{
    /* It is enabled already */
}

static void ss5_dma_stop(Board *b)
{
    qtest_writel(b->qts, SS5_ESPDMA + ESPDMA_CSR, ESPDMA_INTR_ENABLE);
}

static void ss5_dma_assert(Board *b, uint32_t moved)
{
    g_assert_cmphex(qtest_readl(b->qts, SS5_ESPDMA + ESPDMA_ADDR), ==,
                    b->dma.addr + moved);
}

#define AMD(device) { \
        .name = device, \
        .command_line = "-machine pc -device " device ",addr=5,id=hba ", \
        .window = WINDOW_PHYS, \
        .start = amd_start, \
        .esp_write = amd_esp_write, \
        .esp_read = amd_esp_read, \
        .dma_setup = amd_dma_setup, \
        .dma_go = amd_dma_go, \
        .dma_stop = amd_dma_stop, \
        .dma_assert = amd_dma_assert, \
        .stop = amd_stop, \
    }

static const BoardType am53c974 = AMD("am53c974");
static const BoardType dc390 = AMD("dc390");

static const BoardType ss5 = {
    .name = "SS-5",
    .command_line = "-machine SS-5 ",
    .window = DVMA_BASE,
    .start = ss5_start,
    .esp_write = ss5_esp_write,
    .esp_read = ss5_esp_read,
    .dma_setup = ss5_dma_setup,
    .dma_go = ss5_dma_go,
    .dma_stop = ss5_dma_stop,
    .dma_assert = ss5_dma_assert,
    .stop = ss5_stop,
};

/* Memory and disk, and what they shall hold */

static void memory_fill(Board *b, uint32_t seed)
{
    int i;

    scramble(b->memory, WINDOW_SIZE, seed);
    for (i = 0; i < WINDOW_PAGES; i++) {
        qtest_bufwrite(b->qts, b->frame[i], b->memory + i * PAGE, PAGE);
    }
}

static void memory_read(Board *b, uint8_t *buf)
{
    int i;

    for (i = 0; i < WINDOW_PAGES; i++) {
        qtest_bufread(b->qts, b->frame[i], buf + i * PAGE, PAGE);
    }
}

static void assert_everything_as_it_shall_be(Board *b)
{
    g_autofree uint8_t *memory = g_malloc(WINDOW_SIZE);
    g_autofree char *disk = NULL;
    gsize size;

    memory_read(b, memory);
    assert_same("memory", 0, memory, b->memory, WINDOW_SIZE);
    g_assert_true(g_file_get_contents(b->image, &disk, &size, NULL));
    g_assert_cmpuint(size, ==, DISK_SIZE);
    assert_same("the disk", 0, (uint8_t *)disk, b->disk, DISK_SIZE);
}

/* @len bytes from @start of the disk on have been moved to or from @addr. */
static void expect_moved(Board *b, Direction dir, uint32_t start,
                         uint32_t addr, uint32_t len)
{
    if (dir == READ) {
        memcpy(b->memory + addr, b->disk + start, len);
    } else {
        memcpy(b->disk + start, b->memory + addr, len);
    }
}

/* The machine */

static Board *shared_board;

static QDict *query_dma(Board *b)
{
    QDict *reply = qtest_qmp(b->qts, "{ 'execute': 'x-query-dma' }");
    QDict *stats = qdict_get_qdict(reply, "return");

    if (stats) {
        qobject_ref(stats);
    }
    qobject_unref(reply);
    return stats;
}

/*
 * With the binary that the environment variable @var names, if it is set.  As
 * in migration-test, QTEST_QEMU_BINARY_DST can be another version of QEMU.
 */
static void board_launch(Board *b, const char *var, const char *more)
{
    g_autofree char *args = NULL;
    g_autofree char *drive =
        g_strdup_printf("-drive if=none,id=drive0,format=raw,"
                        "file.driver=blkdebug,file.image.driver=file,"
                        "file.image.locking=off,file.image.filename=%s%s",
                        b->image, b->drive);
    int i;

    args = g_strdup_printf("-nodefaults -m 32 %s %s -device scsi-hd,scsi-id=0,"
                           "id=disk0,drive=drive0 %s",
                           b->type->command_line, drive, more);
    b->qts = qtest_init_with_env(var, args, true);
    for (i = 0; i < WINDOW_PAGES; i++) {
        b->frame[i] = WINDOW_PHYS + i * PAGE;
    }
}

static Board *board_new(const BoardType *type, const char *drive,
                        const char *more)
{
    Board *b = g_new0(Board, 1);
    int fd = g_file_open_tmp("esp-dma-test-XXXXXX", &b->image, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    b->type = type;
    b->drive = drive;
    b->memory = g_malloc(WINDOW_SIZE);
    b->disk = g_malloc(DISK_SIZE);
    scramble(b->disk, DISK_SIZE, 0xd15c);
    g_assert_true(g_file_set_contents(b->image, (char *)b->disk, DISK_SIZE,
                                      NULL));
    board_launch(b, NULL, more);
    type->start(b);
    return b;
}

static void board_discard(Board *b)
{
    b->type->stop(b);
    qtest_quit(b->qts);
    qobject_unref(b->before);
    unlink(b->image);
    g_free(b->image);
    g_free(b->memory);
    g_free(b->disk);
    g_free(b);
}

static void reset_chip(Board *b)
{
    b->type->esp_write(b, ESP_CMD, CMD_CHIP_RESET);
    b->type->esp_write(b, ESP_CMD, CMD_NOP);
}

/* Counters */

static QDict *stats_of_hba(QDict *stats)
{
    QList *devices = qdict_get_qlist(stats, "devices");

    g_assert_nonnull(devices);
    g_assert_cmpuint(qlist_size(devices), ==, 1);
    return qobject_to(QDict, qlist_peek(devices));
}

static int64_t count_of(QDict *stats, const char *reason)
{
    QDict *device = stats_of_hba(stats);
    const QListEntry *entry;

    if (!strcmp(reason, "direct")) {
        return qdict_get_int(device, "direct");
    }
    QLIST_FOREACH_ENTRY(qdict_get_qlist(device, "buffered"), entry) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(entry));

        if (!strcmp(qdict_get_str(d, "reason"), reason)) {
            return qdict_get_int(d, "requests");
        }
    }
    return 0;
}

/* So many commands since the test began have moved their data that way. */
static void assert_count(Board *b, const char *reason, int64_t want)
{
    QDict *now;

    if (!b->counts) {
        return;
    }
    now = query_dma(b);
    if (count_of(now, reason) - count_of(b->before, reason) != want) {
        fail("%s: %" PRId64 " commands, not %" PRId64, reason,
             count_of(now, reason) - count_of(b->before, reason), want);
    }
    qobject_unref(now);
}

static void assert_direct(Board *b, int64_t direct)
{
    assert_count(b, "direct", direct);
}

/* Commands */

static bool interrupt_is_pending(Board *b)
{
    return b->type->esp_read(b, ESP_STATUS) & STATUS_INT;
}

static Interrupt wait_for_interrupt_with(Board *b, int64_t moved)
{
    int64_t deadline = patience_ends();
    Interrupt i;
    uint8_t status;

    while (!interrupt_is_pending(b)) {
        wait_before_poll(deadline, "interrupt");
    }
    if (moved >= 0) {
        b->type->dma_assert(b, moved);
    }
    status = b->type->esp_read(b, ESP_STATUS);
    i.phase = status & STATUS_PHASE;
    i.tc = status & STATUS_TC;
    i.count = b->type->esp_read(b, ESP_TCLO) |
              b->type->esp_read(b, ESP_TCMID) << 8;
    if (b->has_tchi) {
        i.count |= b->type->esp_read(b, ESP_TCHI) << 16;
    }
    i.intr = b->type->esp_read(b, ESP_INTR);
    g_assert_false(interrupt_is_pending(b));
    return i;
}

static Interrupt wait_for_interrupt(Board *b)
{
    return wait_for_interrupt_with(b, -1);
}

static uint8_t data_phase(Direction dir)
{
    return dir == READ ? PHASE_DATA_IN : PHASE_DATA_OUT;
}

static void send_cdb(Board *b, const uint8_t *cdb, int len)
{
    int i;

    b->type->esp_write(b, ESP_CMD, CMD_FLUSH);
    b->type->esp_write(b, ESP_DESTID, 0);
    b->type->esp_write(b, ESP_FIFO, MSG_IDENTIFY);
    for (i = 0; i < len; i++) {
        b->type->esp_write(b, ESP_FIFO, cdb[i]);
    }
    b->type->esp_write(b, ESP_CMD, CMD_SELATN);
}

static void send_command(Board *b, Direction dir, uint32_t start, uint32_t len)
{
    uint8_t cdb[10] = { dir == READ ? SCSI_READ_10 : SCSI_WRITE_10 };

    stl_be_p(&cdb[2], start / SECTOR);
    stw_be_p(&cdb[7], len / SECTOR);
    send_cdb(b, cdb, sizeof(cdb));
}

static void wait_for_data_phase(Board *b, Direction dir)
{
    Interrupt i = wait_for_interrupt(b);

    g_assert_cmphex(i.phase, ==, data_phase(dir));
    g_assert_cmphex(i.intr, ==, INTR_BS | INTR_FC);
}

/* Send a command, and wait until it asks for its data. */
static void begin_command(Board *b, Direction dir, uint32_t start,
                          uint32_t len)
{
    send_command(b, dir, start, len);
    wait_for_data_phase(b, dir);
}

static void set_count(Board *b, uint32_t count)
{
    b->type->esp_write(b, ESP_TCLO, count);
    b->type->esp_write(b, ESP_TCMID, count >> 8);
    b->type->esp_write(b, ESP_TCHI, count >> 16);
    b->has_tchi = true;
}

static void start_ti_dma(Board *b, uint32_t count, const DMA *dma)
{
    b->type->dma_setup(b, dma);
    set_count(b, count);
    b->type->esp_write(b, ESP_CMD, CMD_TI | CMD_DMA);
    b->type->dma_go(b);
}

/* A TI of @count bytes to or from offset @addr of the window */
static void start_ti(Board *b, Direction dir, uint32_t addr, uint32_t count)
{
    start_ti_dma(b, count, &(DMA) {
        .dir = dir,
        .addr = b->type->window + addr,
        .count = count,
    });
}

/* The TI has moved @moved bytes, all that the command had left. */
static void wait_for_status_phase(Board *b, uint32_t moved)
{
    Interrupt i = wait_for_interrupt_with(b, moved);

    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    g_assert_cmphex(i.intr, ==, INTR_BS);
    g_assert_cmpuint(i.count, ==, b->dma.count - moved);
    g_assert_cmpint(i.tc, ==, i.count == 0);
}

/* The TI has moved all of its bytes, and the command has more. */
static void wait_for_part(Board *b)
{
    Interrupt i = wait_for_interrupt_with(b, b->dma.count);

    g_assert_cmphex(i.phase, ==, data_phase(b->dma.dir));
    g_assert_cmphex(i.intr, ==, INTR_BS);
    g_assert_cmpuint(i.count, ==, 0);
    g_assert_true(i.tc);
}

static uint8_t fetch_status(Board *b)
{
    Interrupt i;
    uint8_t status;

    b->type->esp_write(b, ESP_CMD, CMD_ICCS);
    i = wait_for_interrupt(b);
    g_assert_cmphex(i.intr, ==, INTR_FC);
    status = b->type->esp_read(b, ESP_FIFO);
    g_assert_cmphex(b->type->esp_read(b, ESP_FIFO), ==, 0);
    b->type->esp_write(b, ESP_CMD, CMD_MSGACC);
    i = wait_for_interrupt(b);
    g_assert_cmphex(i.intr, ==, INTR_DC);
    return status;
}

static void finish(Board *b)
{
    g_assert_cmphex(fetch_status(b), ==, SCSI_GOOD);
}

/* After a reset, a disk tells so instead of doing its first command. */
static void unit_attention(Board *b)
{
    static const uint8_t test_unit_ready[6];
    Interrupt i;

    send_cdb(b, test_unit_ready, sizeof(test_unit_ready));
    i = wait_for_interrupt(b);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    fetch_status(b);
}

/* Tests */

static void test_prepare(Board *b)
{
    static uint32_t seed;

    memory_fill(b, ++seed);
    reset_chip(b);
    unit_attention(b);
    b->before = query_dma(b);
    b->counts = b->before != NULL;
}

/* Begin a test on a machine that earlier tests may have used. */
static Board *test_begin_drive(const BoardType *type, const char *drive)
{
    if (shared_board && (shared_board->type != type ||
                         strcmp(shared_board->drive, drive))) {
        g_clear_pointer(&shared_board, board_discard);
    }
    if (!shared_board) {
        shared_board = board_new(type, drive, "");
    }
    test_prepare(shared_board);
    return shared_board;
}

static Board *esp_test_begin(const void *type)
{
    return test_begin_drive(type, "");
}

static void esp_test_end(Board *b)
{
    assert_everything_as_it_shall_be(b);
    qobject_unref(b->before);
    b->before = NULL;
}

/* End a test on a machine that others cannot use. */
static void test_end_and_discard(Board *b)
{
    esp_test_end(b);
    if (b == shared_board) {
        shared_board = NULL;
    }
    board_discard(b);
}

/* A command whose data is moved by one TI of @count bytes, enough for it */
static void move_at_once(Board *b, Direction dir, uint32_t start,
                         uint32_t addr, uint32_t len, uint32_t count)
{
    begin_command(b, dir, start, len);
    start_ti(b, dir, addr, count);
    wait_for_status_phase(b, len);
    finish(b);
    expect_moved(b, dir, start, addr, len);
}

/* A command whose data is moved by TIs of @part bytes each */
static void move_in_parts(Board *b, Direction dir, uint32_t start,
                          uint32_t addr, uint32_t len, uint32_t part)
{
    uint32_t pos, n = 0;

    begin_command(b, dir, start, len);
    for (pos = 0; pos < len; pos += n) {
        n = MIN(part, len - pos);
        start_ti(b, dir, addr + pos, n);
        if (pos + n < len) {
            wait_for_part(b);
        }
    }
    wait_for_status_phase(b, n);
    finish(b);
    expect_moved(b, dir, start, addr, len);
}

/* The controller serves the next commands as ever, directly. */
static void assert_usable(Board *b)
{
    assert_everything_as_it_shall_be(b);
    move_at_once(b, READ, 100 * SECTOR, 5 * PAGE + 4, 8 * SECTOR, 8 * SECTOR);
    move_at_once(b, WRITE, 120 * SECTOR, 9 * PAGE, 3 * SECTOR, 3 * SECTOR);
}

/* One TI for all */

static void test_whole(const void *type)
{
    static const uint32_t sectors[] = { 1, 3, 8, 128, 256, 257, 700 };
    Board *b = esp_test_begin(type);
    int i;

    for (i = 0; i < ARRAY_SIZE(sectors); i++) {
        uint32_t len = sectors[i] * SECTOR;

        move_at_once(b, WRITE, 7 * SECTOR, ADDR, len, len);
        move_at_once(b, READ, 20 * SECTOR, ADDR + 3, len, len);
        move_at_once(b, READ, 9 * SECTOR, 8 * PAGE, len, len);
    }
    assert_direct(b, 3 * ARRAY_SIZE(sectors));
    esp_test_end(b);
}

/* A TI that could move more than the command has: the rest is left over. */
static void test_count_is_larger(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        move_at_once(b, dir, 7 * SECTOR, ADDR, 8 * SECTOR, 8 * SECTOR + 1);
        move_at_once(b, dir, 9 * SECTOR, ADDR, 8 * SECTOR, 70000);
        move_at_once(b, dir, 9 * SECTOR, ADDR, SCSI_BUFFER + SECTOR,
                     2 * SCSI_BUFFER);
    }
    assert_direct(b, 6);
    esp_test_end(b);
}

/* A TI for less than the command has, then one for the rest */
static void test_count_is_smaller(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        move_in_parts(b, dir, 7 * SECTOR, ADDR, 8 * SECTOR, 8 * SECTOR - 1);
        move_in_parts(b, dir, 9 * SECTOR, ADDR, SCSI_BUFFER + SECTOR,
                      SCSI_BUFFER);
    }
    assert_direct(b, 0);
    assert_count(b, "partial", 4);
    esp_test_end(b);
}

static void test_parts(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        move_in_parts(b, dir, 7 * SECTOR, ADDR, 3 * SECTOR, 512);
        move_in_parts(b, dir, 7 * SECTOR, ADDR, 64 * KiB, PAGE);
        move_in_parts(b, dir, 9 * SECTOR, 7, 300 * KiB, 64 * KiB);
        move_in_parts(b, dir, 9 * SECTOR, ADDR, 140 * KiB, 9999);
    }
    assert_direct(b, 0);
    assert_count(b, "partial", 8);
    esp_test_end(b);
}

/*
 * A read that begins before its TI is known, because the last ones of its
 * length were moved in parts, uses the buffer even if one TI asks for all.
 */
static void test_habit(const void *type)
{
    Board *b = esp_test_begin(type);
    uint32_t len = 8 * SECTOR;

    move_in_parts(b, READ, 7 * SECTOR, ADDR, len, 1024);    /* partial */
    move_in_parts(b, READ, 8 * SECTOR, ADDR, len, 1024);    /* partial */
    move_at_once(b, READ, 9 * SECTOR, ADDR, len, len);      /* habit */
    move_at_once(b, READ, 10 * SECTOR, ADDR, len, len);     /* habit */
    move_at_once(b, READ, 11 * SECTOR, ADDR, len, len);     /* direct */
    move_at_once(b, READ, 12 * SECTOR, ADDR, len, len);     /* direct */
    move_in_parts(b, READ, 13 * SECTOR, ADDR, len, 1024);   /* partial */
    move_at_once(b, READ, 14 * SECTOR, ADDR, len, len);     /* direct */
    assert_direct(b, 3);
    assert_count(b, "partial", 3);
    assert_count(b, "habit", 2);
    esp_test_end(b);
}

/* Other lengths, and writes, are another matter. */
static void test_habit_of_a_length(const void *type)
{
    Board *b = esp_test_begin(type);
    uint32_t len = 8 * SECTOR;

    move_in_parts(b, READ, 7 * SECTOR, ADDR, len, 1024);
    move_in_parts(b, READ, 7 * SECTOR, ADDR, len, 1024);
    move_at_once(b, READ, 7 * SECTOR, ADDR, len / 2, len / 2);
    move_at_once(b, WRITE, 7 * SECTOR, ADDR, len, len);
    assert_direct(b, 2);
    esp_test_end(b);
}

/* The driver that comes after a reset may have other habits. */
static void test_habit_after_reset(const void *type)
{
    Board *b = esp_test_begin(type);
    uint32_t len = 8 * SECTOR;

    move_in_parts(b, READ, 7 * SECTOR, ADDR, len, 1024);
    move_in_parts(b, READ, 7 * SECTOR, ADDR, len, 1024);
    reset_chip(b);
    move_at_once(b, READ, 7 * SECTOR, ADDR, len, len);
    assert_direct(b, 1);
    esp_test_end(b);
}

/* Commands whose data the device makes up */
static void test_inquiry(const void *type)
{
    static const uint8_t cdb[6] = { SCSI_INQUIRY, [4] = 36 };
    Board *b = esp_test_begin(type);
    uint8_t data[36];

    send_cdb(b, cdb, sizeof(cdb));
    wait_for_data_phase(b, READ);
    start_ti(b, READ, 0, 36);
    wait_for_status_phase(b, 36);
    finish(b);
    qtest_bufread(b->qts, b->frame[0], data, sizeof(data));
    g_assert_cmpint(memcmp(data + 8, "QEMU    QEMU HARDDISK   ", 24), ==, 0);
    memcpy(b->memory, data, sizeof(data));
    assert_direct(b, 0);
    assert_count(b, "unsupported", 1);
    esp_test_end(b);
}

/* One byte of a command's data, through the FIFO */
static Interrupt move_byte(Board *b, Direction dir, int i)
{
    Interrupt irq;

    if (dir == WRITE) {
        b->type->esp_write(b, ESP_FIFO, b->memory[i]);
    }
    b->type->esp_write(b, ESP_CMD, CMD_TI);
    irq = wait_for_interrupt(b);
    g_assert_cmphex(irq.intr, ==, INTR_BS);
    if (dir == READ) {
        g_assert_cmphex(b->type->esp_read(b, ESP_FIFO), ==,
                        b->disk[7 * SECTOR + i]);
    }
    return irq;
}

/* A driver that moves the data itself */
static void test_no_dma(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;
    Interrupt irq;
    int i;

    for (dir = READ; dir <= WRITE; dir++) {
        begin_command(b, dir, 7 * SECTOR, SECTOR);
        for (i = 0; i < SECTOR; i++) {
            irq = move_byte(b, dir, i);
        }
        g_assert_cmphex(irq.phase, ==, PHASE_STATUS);
        finish(b);
    }
    expect_moved(b, WRITE, 7 * SECTOR, 0, SECTOR);

    assert_direct(b, 0);
    assert_count(b, "mode", 2);
    assert_usable(b);
    esp_test_end(b);
}

/* Transfer Pad: the data of a read is dropped, that of a write is zero. */
static void pad(Board *b, Direction dir, uint32_t start, uint32_t len)
{
    Interrupt i;

    begin_command(b, dir, start, len);
    b->type->dma_setup(b, &(DMA) { .dir = dir, .addr = b->type->window });
    set_count(b, len);
    b->type->esp_write(b, ESP_CMD, CMD_PAD | CMD_DMA);
    i = wait_for_interrupt(b);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    g_assert_cmphex(i.intr, ==, INTR_BS);
    finish(b);
    if (dir == WRITE) {
        memset(b->disk + start, 0, len);
    }
}

static void test_pad(const void *type)
{
    Board *b = esp_test_begin(type);

    pad(b, READ, 7 * SECTOR, 8 * SECTOR);
    pad(b, WRITE, 7 * SECTOR, 8 * SECTOR);
    assert_direct(b, 0);
    assert_count(b, "mode", 2);
    assert_usable(b);
    esp_test_end(b);
}

/* One that is longer than the buffer of the disk */
static void test_pad_long(const void *type)
{
    Board *b = esp_test_begin(type);

    pad(b, READ, 7 * SECTOR, 2 * SCSI_BUFFER);
    assert_usable(b);
    esp_test_end(b);
}

/* NOP, or emptying the FIFO, between command and data */
static void test_nop_before_ti(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        begin_command(b, dir, 7 * SECTOR, 8 * SECTOR);
        b->type->esp_write(b, ESP_CMD, CMD_NOP);
        b->type->esp_write(b, ESP_CMD, CMD_NOP | CMD_DMA);
        b->type->esp_write(b, ESP_CMD, CMD_FLUSH);
        start_ti(b, dir, ADDR, 8 * SECTOR);
        wait_for_status_phase(b, 8 * SECTOR);
        finish(b);
        expect_moved(b, dir, 7 * SECTOR, ADDR, 8 * SECTOR);
    }
    assert_direct(b, 2);
    esp_test_end(b);
}

/* Errors */

static void test_error(const void *type)
{
    Board *b = test_begin_drive(type, BAD_DISK);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        Interrupt i;

        send_command(b, dir, (BAD_SECTOR - 2) * SECTOR, 8 * SECTOR);
        i = wait_for_interrupt(b);
        if (i.phase != PHASE_STATUS) {
            g_assert_cmphex(i.phase, ==, data_phase(dir));
            start_ti(b, dir, ADDR, 8 * SECTOR);
            i = wait_for_interrupt(b);
            g_assert_cmphex(i.phase, ==, PHASE_STATUS);
            g_assert_cmphex(i.intr, ==, INTR_BS);
            g_assert_cmpuint(i.count, ==, dir == READ ? 8 * SECTOR : 0);
        }
        g_assert_cmphex(fetch_status(b), ==, SCSI_CHECK_CONDITION);
        assert_usable(b);
    }
    esp_test_end(b);
}

/* The machine stops at an error, and the command goes on when it runs again. */
static void test_stop_at_error(const void *type)
{
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        Board *b = board_new(type, BAD_ONCE,
                             "-set device.disk0.rerror=stop "
                             "-set device.disk0.werror=stop");
        uint32_t start = (BAD_SECTOR - 2) * SECTOR;

        test_prepare(b);
        send_command(b, dir, start, 8 * SECTOR);
        if (dir == WRITE || b->counts) {
            wait_for_data_phase(b, dir);
            start_ti(b, dir, ADDR, 8 * SECTOR);
        }
        qtest_qmp_eventwait(b->qts, "STOP");
        qtest_qmp_assert_success(b->qts, "{ 'execute': 'cont' }");
        if (dir == READ && !b->counts) {
            wait_for_data_phase(b, dir);
            start_ti(b, dir, ADDR, 8 * SECTOR);
        }
        wait_for_status_phase(b, 8 * SECTOR);
        finish(b);
        expect_moved(b, dir, start, ADDR, 8 * SECTOR);
        assert_direct(b, 1);
        assert_usable(b);
        test_end_and_discard(b);
    }
}

/* Endings of commands that wait for their TI, or are in flight */

typedef enum Ending {
    CHIP_RESET, BUS_RESET, SYSTEM_RESET, SELECTION, DMA_ABORT, ENDINGS
} Ending;

static const char *const ending_name[ENDINGS] = {
    "chip-reset", "bus-reset", "system-reset", "selection", "dma-abort"
};

typedef struct EndingTest {
    const BoardType *type;
    Ending ending;
    Direction dir;
    bool in_flight;
} EndingTest;

static void end_command(Board *b, Ending ending)
{
    Interrupt i;

    switch (ending) {
    case CHIP_RESET:
        reset_chip(b);
        break;
    case BUS_RESET:
        b->type->esp_write(b, ESP_CMD, CMD_BUS_RESET);
        i = wait_for_interrupt(b);
        g_assert_cmphex(i.intr & INTR_RST, ==, INTR_RST);
        break;
    case SYSTEM_RESET:
        qtest_system_reset(b->qts);
        b->type->stop(b);
        b->type->start(b);
        break;
    case SELECTION:
        move_at_once(b, READ, 9 * SECTOR, 60 * PAGE, SECTOR, SECTOR);
        break;
    case DMA_ABORT:
        qpci_io_writel(b->hba, b->bar, AMD_DMA_CMD, AMD_ABORT);
        break;
    default:
        g_assert_not_reached();
    }
}

/* Whatever is still to happen has had the time to. */
static void settle(Board *b)
{
    int64_t end = g_get_monotonic_time() + 40000;

    while (g_get_monotonic_time() < end) {
        b->type->esp_read(b, ESP_STATUS);
    }
}

/*
 * Move the data of a command on the slow disk, and return while it is under
 * way.  On a machine that is slow too, that may take more than one command.
 * A QEMU that does not move data directly has done so at once.
 */
static void catch_in_flight(Board *b, Direction dir, uint32_t start)
{
    int64_t deadline = patience_ends();

    for (;;) {
        start_ti(b, dir, ADDR, 8 * SECTOR);
        if (!b->counts || !interrupt_is_pending(b)) {
            return;
        }
        wait_for_status_phase(b, 8 * SECTOR);
        finish(b);
        expect_moved(b, dir, start, ADDR, 8 * SECTOR);
        wait_before_poll(deadline, "data in flight");
        begin_command(b, dir, start, 8 * SECTOR);
    }
}

static void test_ending(const void *data)
{
    const EndingTest *t = data;
    uint32_t start = (BAD_SECTOR - 2) * SECTOR;
    Board *b = test_begin_drive(t->type, SLOW_DISK);
    g_autofree uint8_t *memory = g_malloc(WINDOW_SIZE);
    g_autofree char *disk = NULL;
    gsize size;

    begin_command(b, t->dir, start, 8 * SECTOR);
    if (t->in_flight) {
        catch_in_flight(b, t->dir, start);
    }
    end_command(b, t->ending);

    /* The command may have come to its end before; or not, but then for ever */
    if (t->in_flight) {
        memory_read(b, memory);
        if (t->dir == READ &&
            !memcmp(memory + ADDR, b->disk + start, 8 * SECTOR)) {
            expect_moved(b, READ, start, ADDR, 8 * SECTOR);
        }
    }
    settle(b);
    if (t->in_flight && t->dir == WRITE) {
        g_assert_true(g_file_get_contents(b->image, &disk, &size, NULL));
        if (!memcmp(disk + start, b->memory + ADDR, 8 * SECTOR)) {
            expect_moved(b, WRITE, start, ADDR, 8 * SECTOR);
        }
    }
    reset_chip(b);
    unit_attention(b);
    assert_usable(b);
    esp_test_end(b);
}

/* A DMA engine that the guest stops does not touch memory any more. */
static void test_dma_stop(const void *type)
{
    Board *b = test_begin_drive(type, SLOW_DISK);
    uint32_t start = (BAD_SECTOR - 2) * SECTOR;
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        g_autofree uint8_t *memory = g_malloc(WINDOW_SIZE);
        Interrupt i;

        begin_command(b, dir, start, 8 * SECTOR);
        start_ti(b, dir, ADDR, 8 * SECTOR);
        b->type->dma_stop(b);
        expect_moved(b, dir, start, ADDR, 8 * SECTOR);
        memory_read(b, memory);
        assert_same("memory", 0, memory, b->memory, WINDOW_SIZE);
        i = wait_for_interrupt(b);
        g_assert_cmphex(i.phase, ==, PHASE_STATUS);
        finish(b);
        assert_usable(b);
    }
    esp_test_end(b);
}

/* Stopped between command and data */
static void test_dma_stop_before_ti(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        begin_command(b, dir, 7 * SECTOR, 8 * SECTOR);
        b->type->dma_stop(b);
        start_ti(b, dir, ADDR, 8 * SECTOR);
        wait_for_status_phase(b, 8 * SECTOR);
        finish(b);
        expect_moved(b, dir, 7 * SECTOR, ADDR, 8 * SECTOR);
    }
    assert_direct(b, 2);
    esp_test_end(b);
}

/* Migration */

/* @forge may change the stream, and what becomes of the migration is @want. */
static void board_migrate(Board *b, Forge *forge, const char *want)
{
    g_autofree char *stream = g_strdup_printf("%s.stream", b->image);

    migrate_to_file(b->qts, stream);
    b->type->stop(b);
    qtest_quit(b->qts);
    if (forge) {
        forge_file(stream, forge, NULL);
    }

    b->drive = "";
    /* QEMU does not migrate that it was written. */
    b->has_tchi = false;
    board_launch(b, "QTEST_QEMU_BINARY_DST", "-incoming defer");
    migrate_from_file(b->qts, stream, want);
    unlink(stream);
}

/* The machine goes on in another QEMU, with a disk that has no faults. */
static void migrate_forged(Board *b, Forge *forge)
{
    board_migrate(b, forge, "completed");
    qtest_qmp_assert_success(b->qts, "{ 'execute': 'cont' }");
    b->type->start(b);
    qobject_unref(b->before);
    b->before = query_dma(b);
}

static void migrate(Board *b)
{
    migrate_forged(b, NULL);
}

static void test_migrate_idle(const void *type)
{
    Board *b = board_new(type, "", "");

    test_prepare(b);
    assert_usable(b);
    migrate(b);
    assert_usable(b);
    test_end_and_discard(b);
}

static void test_migrate_before_ti(const void *type)
{
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        Board *b = board_new(type, "", "");

        test_prepare(b);
        begin_command(b, dir, 7 * SECTOR, 8 * SECTOR);
        migrate(b);
        start_ti(b, dir, ADDR, 8 * SECTOR);
        wait_for_status_phase(b, 8 * SECTOR);
        finish(b);
        expect_moved(b, dir, 7 * SECTOR, ADDR, 8 * SECTOR);
        assert_direct(b, 1);
        assert_usable(b);
        test_end_and_discard(b);
    }
}

static void test_migrate_before_parts(const void *type)
{
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        Board *b = board_new(type, "", "");

        test_prepare(b);
        begin_command(b, dir, 7 * SECTOR, 8 * SECTOR);
        migrate(b);
        start_ti(b, dir, ADDR, 3 * SECTOR);
        wait_for_part(b);
        start_ti(b, dir, ADDR + 3 * SECTOR, 5 * SECTOR);
        wait_for_status_phase(b, 5 * SECTOR);
        finish(b);
        expect_moved(b, dir, 7 * SECTOR, ADDR, 8 * SECTOR);
        assert_direct(b, 0);
        assert_usable(b);
        test_end_and_discard(b);
    }
}

/* Part of the data has been moved, and the rest is in the buffer. */
static void test_migrate_between_parts(const void *type)
{
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        Board *b = board_new(type, "", "");

        test_prepare(b);
        begin_command(b, dir, 7 * SECTOR, 8 * SECTOR);
        start_ti(b, dir, ADDR, 3 * SECTOR);
        wait_for_part(b);
        migrate(b);
        start_ti(b, dir, ADDR + 3 * SECTOR, SECTOR + 2);
        wait_for_part(b);
        migrate(b);
        migrate(b);
        start_ti(b, dir, ADDR + 4 * SECTOR + 2, 4 * SECTOR - 2);
        wait_for_status_phase(b, 4 * SECTOR - 2);
        finish(b);
        expect_moved(b, dir, 7 * SECTOR, ADDR, 8 * SECTOR);
        assert_direct(b, 0);
        assert_usable(b);
        test_end_and_discard(b);
    }
}

/* Of what the chip migrates if data is left in the buffer: a 32-bit field */
static char *buf_field(char *stream, gsize len, int field)
{
    static const char name[] = "esp/buf";
    char *p = memmem(stream, len, name, strlen(name));

    g_assert_nonnull(p);
    return p + strlen(name) + 4 /* version */ + field * 4;
}

/* What is left begins where the buffer ends. */
static void forge_offset(char *stream, gsize len, const void *opaque)
{
    char *async_offset = buf_field(stream, len, 1);

    g_assert_cmpint(ldl_be_p(async_offset), ==, 3 * SECTOR);
    stl_be_p(async_offset, 8 * SECTOR);
}

static void test_migrate_forged(const void *type)
{
    Board *b = board_new(type, "", "");

    test_prepare(b);
    begin_command(b, READ, 7 * SECTOR, 8 * SECTOR);
    start_ti(b, READ, ADDR, 3 * SECTOR);
    wait_for_part(b);
    migrate_forged(b, forge_offset);
    start_ti(b, READ, ADDR + 3 * SECTOR, 5 * SECTOR);
    /* There is no data, and the chip waits for it. */
    expect_moved(b, READ, 7 * SECTOR, ADDR, 3 * SECTOR);
    end_command(b, BUS_RESET);
    unit_attention(b);
    assert_usable(b);
    test_end_and_discard(b);
}

/* Of what the disk migrates: where it reads next, and what it has read */
static char *disk_field(char *stream, gsize len, int field)
{
    uint8_t fields[20] = { 0 };
    char *p;

    stq_be_p(&fields[0], 7 + 8);
    stl_be_p(&fields[12], 128 * KiB);
    stl_be_p(&fields[16], 8 * SECTOR);
    p = find_in_stream(stream, len, fields, sizeof(fields));
    return p + field * 4;
}

static void forge_buffer_size(char *stream, gsize len, const void *opaque)
{
    stl_be_p(disk_field(stream, len, 3), UINT32_MAX);
}

static void forge_data_length(char *stream, gsize len, const void *opaque)
{
    stl_be_p(disk_field(stream, len, 4), 128 * KiB + 1);
}

static void test_migrate_refused(const void *type)
{
    static Forge *const forge[] = { forge_data_length, forge_buffer_size };
    int i;

    for (i = 0; i < ARRAY_SIZE(forge); i++) {
        Board *b = board_new(type, "", "");

        test_prepare(b);
        begin_command(b, READ, 7 * SECTOR, 8 * SECTOR);
        start_ti(b, READ, ADDR, 3 * SECTOR);
        wait_for_part(b);
        board_migrate(b, forge[i], "failed");
        b->type->start(b);
        board_discard(b);
    }
}

static void test_migrate_no_dma(const void *type)
{
    Direction dir;
    Interrupt irq;
    int i;

    for (dir = READ; dir <= WRITE; dir++) {
        Board *b = board_new(type, "", "");

        test_prepare(b);
        begin_command(b, dir, 7 * SECTOR, SECTOR);
        for (i = 0; i < SECTOR; i++) {
            if (i == SECTOR / 3) {
                migrate(b);
            }
            irq = move_byte(b, dir, i);
        }
        g_assert_cmphex(irq.phase, ==, PHASE_STATUS);
        finish(b);
        if (dir == WRITE) {
            expect_moved(b, WRITE, 7 * SECTOR, 0, SECTOR);
        }
        assert_usable(b);
        test_end_and_discard(b);
    }
}

/* Data that the device makes up, and does not migrate: part of it has moved. */

typedef struct Answer {
    uint8_t cdb[12];
    int cdb_len;
    int len;
    bool sense;                 /* of the unit attention after a reset */
} Answer;

static const Answer inquiry = { { SCSI_INQUIRY, [4] = 36 }, 6, 36 };

static void begin_answer(Board *b, const Answer *answer)
{
    if (answer->sense) {
        end_command(b, BUS_RESET);
        unit_attention(b);
    }
    send_cdb(b, answer->cdb, answer->cdb_len);
    wait_for_data_phase(b, READ);
}

static void test_migrate_answer(const void *type)
{
    const Answer answers[] = {
        inquiry,
        { { SCSI_REPORT_LUNS, [9] = 16 }, 12, 16 },
        { { SCSI_REQUEST_SENSE, [4] = 18 }, 6, 18, .sense = true },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(answers); i++) {
        const Answer *answer = &answers[i];
        int rest = answer->len - 8;
        Board *b = board_new(type, "", "");

        test_prepare(b);
        begin_answer(b, answer);
        start_ti(b, READ, 0, answer->len);
        wait_for_status_phase(b, answer->len);
        finish(b);
        qtest_bufread(b->qts, b->frame[0], b->memory, answer->len);

        begin_answer(b, answer);
        migrate(b);
        start_ti(b, READ, ADDR, 8);
        wait_for_part(b);
        migrate(b);
        migrate(b);
        start_ti(b, READ, ADDR + 8, rest);
        wait_for_status_phase(b, rest);
        finish(b);
        memcpy(b->memory + ADDR, b->memory, answer->len);
        assert_usable(b);
        test_end_and_discard(b);
    }
}

/* The chip has more of an answer to move than came with it. */
static void forge_length(char *stream, gsize len, const void *opaque)
{
    char *async_len = buf_field(stream, len, 0);

    g_assert_cmpint(ldl_be_p(async_len), ==, inquiry.len);
    stl_be_p(async_len, 60000);
}

static void test_migrate_forged_answer(const void *type)
{
    Board *b = board_new(type, "", "");

    test_prepare(b);
    begin_answer(b, &inquiry);
    migrate_forged(b, forge_length);
    migrate(b);
    start_ti(b, READ, ADDR, inquiry.len);
    /* There is none at all. */
    settle(b);
    end_command(b, BUS_RESET);
    unit_attention(b);
    assert_usable(b);
    test_end_and_discard(b);
}

/*
 * Data that the disk has to have as a whole, and does not migrate: it ends the
 * command, whatever the guest sends then.
 */
static void test_migrate_parameters(const void *type)
{
    static const uint8_t write_same[10] = { SCSI_WRITE_SAME_10, [8] = 1 };
    Board *b = board_new(type, "", "");
    Interrupt i;

    test_prepare(b);
    send_cdb(b, write_same, sizeof(write_same));
    wait_for_data_phase(b, WRITE);
    start_ti(b, WRITE, ADDR, SECTOR / 3);
    wait_for_part(b);
    migrate(b);
    i = wait_for_interrupt(b);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    g_assert_cmphex(i.intr, ==, INTR_BS);
    g_assert_cmphex(fetch_status(b), ==, SCSI_CHECK_CONDITION);
    assert_usable(b);
    test_end_and_discard(b);
}

/*
 * A command without data waits to be done again.  It has a buffer nevertheless,
 * and that is too small for any.
 */
static void forge_small_buffer(char *stream, gsize len, const void *opaque)
{
    /* CDB, tag, LUN; sector, number of sectors, size of the buffer */
    uint8_t request[16 + 4 + 4 + 8 + 4 + 4] = { SCSI_SYNC_CACHE_10 };
    char *p;

    stl_be_p(&request[36], 4 * KiB);
    p = find_in_stream(stream, len, request, sizeof(request));
    stl_be_p(p + 36, 1);
}

static void test_migrate_forged_flush(const void *type)
{
    static const uint8_t flush[10] = { SCSI_SYNC_CACHE_10 };
    Board *b = board_new(type, BAD_FLUSH_ONCE, "-set device.disk0.werror=stop");
    Interrupt i;

    test_prepare(b);
    /* There is something to be flushed. */
    move_at_once(b, WRITE, 7 * SECTOR, ADDR, SECTOR, SECTOR);
    send_cdb(b, flush, sizeof(flush));
    qtest_qmp_eventwait(b->qts, "STOP");
    migrate_forged(b, forge_small_buffer);
    i = wait_for_interrupt(b);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    finish(b);
    assert_usable(b);
    test_end_and_discard(b);
}

/* The disk has news, but this command is older than they are. */
static void test_migrate_unit_attention(const void *type)
{
    Board *b = board_new(type, "", "");

    test_prepare(b);
    begin_command(b, READ, 7 * SECTOR, 8 * SECTOR);
    qtest_qmp_assert_success(b->qts, "{ 'execute': 'block_resize',"
                             "  'arguments': { 'device': 'drive0',"
                             "                 'size': %d } }",
                             (int)(DISK_SIZE + SECTOR));
    migrate(b);
    start_ti(b, READ, ADDR, 8 * SECTOR);
    wait_for_status_phase(b, 8 * SECTOR);
    finish(b);
    expect_moved(b, READ, 7 * SECTOR, ADDR, 8 * SECTOR);
    unit_attention(b);
    /* As large as the test knows it */
    g_assert_cmpint(truncate(b->image, DISK_SIZE), ==, 0);
    assert_usable(b);
    test_end_and_discard(b);
}

/* A direct command that waits for its retry after an error */
static void test_migrate_at_error(const void *type)
{
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        Board *b = board_new(type, BAD_DISK,
                             "-set device.disk0.rerror=stop "
                             "-set device.disk0.werror=stop");
        uint32_t start = (BAD_SECTOR - 2) * SECTOR;

        test_prepare(b);
        send_command(b, dir, start, 8 * SECTOR);
        if (dir == WRITE || b->counts) {
            wait_for_data_phase(b, dir);
            start_ti(b, dir, ADDR, 8 * SECTOR);
        }
        qtest_qmp_eventwait(b->qts, "STOP");
        migrate(b);
        if (dir == READ && !b->counts) {
            wait_for_data_phase(b, dir);
            start_ti(b, dir, ADDR, 8 * SECTOR);
        }
        wait_for_status_phase(b, 8 * SECTOR);
        finish(b);
        expect_moved(b, dir, start, ADDR, 8 * SECTOR);
        assert_usable(b);
        test_end_and_discard(b);
    }
}

/* direct-dma=off */

static void test_off(const void *data)
{
    const BoardType *type = data;
    const char *option = type == &ss5 ? "-global sysbus-esp.direct-dma=off"
                                      : "-global am53c974.direct-dma=off";
    Board *b = board_new(type, "", option);
    Direction dir;

    test_prepare(b);
    for (dir = READ; dir <= WRITE; dir++) {
        move_at_once(b, dir, 7 * SECTOR, ADDR, 8 * SECTOR, 8 * SECTOR);
        move_at_once(b, dir, 8 * SECTOR, ADDR, 300 * KiB, 300 * KiB);
    }
    assert_direct(b, 0);
    assert_count(b, "disabled", 4);
    test_end_and_discard(b);
}

/* Am53C974: what its DMA engine does when the driver gets it wrong */

/* The engine counts less than the chip: what is missing is lost. */
static void test_dma_count_is_smaller(const void *type)
{
    Board *b = esp_test_begin(type);
    uint32_t window = b->type->window;
    Interrupt i;

    begin_command(b, READ, 7 * SECTOR, 2 * SECTOR);
    start_ti_dma(b, 2 * SECTOR, &(DMA) { READ, window + ADDR, 700 });
    i = wait_for_interrupt_with(b, 700);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    g_assert_cmpuint(i.count, ==, 0);
    finish(b);
    expect_moved(b, READ, 7 * SECTOR, ADDR, 700);
    assert_direct(b, 0);
    assert_count(b, "mode", 1);
    assert_usable(b);
    esp_test_end(b);
}

/* The engine counts more than the chip: it is not done. */
static void test_dma_count_is_larger(const void *type)
{
    Board *b = esp_test_begin(type);
    uint32_t window = b->type->window;
    Interrupt i;

    begin_command(b, READ, 7 * SECTOR, 2 * SECTOR);
    start_ti_dma(b, 2 * SECTOR, &(DMA) { READ, window + ADDR, 5000 });
    i = wait_for_interrupt_with(b, 2 * SECTOR);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    g_assert_cmpuint(i.count, ==, 0);
    finish(b);
    expect_moved(b, READ, 7 * SECTOR, ADDR, 2 * SECTOR);
    assert_direct(b, 1);
    assert_usable(b);
    esp_test_end(b);
}

/* The engine is programmed for the other direction: nothing moves. */
static void test_dma_direction(const void *type)
{
    Board *b = esp_test_begin(type);
    uint32_t window = b->type->window;
    Interrupt i;

    begin_command(b, READ, 7 * SECTOR, 2 * SECTOR);
    start_ti_dma(b, 2 * SECTOR, &(DMA) { WRITE, window + ADDR, 2 * SECTOR });
    i = wait_for_interrupt_with(b, 0);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    finish(b);
    assert_direct(b, 0);
    assert_count(b, "mode", 1);
    assert_usable(b);
    esp_test_end(b);
}

/* A TI that waits for the engine, and is replaced by another command */
static void test_ti_replaced(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        DMA dma = { dir, b->type->window + ADDR, 2 * SECTOR };

        begin_command(b, dir, 7 * SECTOR, 2 * SECTOR);
        b->type->dma_setup(b, &dma);
        set_count(b, 2 * SECTOR);
        b->type->esp_write(b, ESP_CMD, CMD_TI | CMD_DMA);
        b->type->esp_write(b, ESP_CMD, CMD_NOP | CMD_DMA);
        b->type->dma_go(b);
        settle(b);
        g_assert_false(interrupt_is_pending(b));
        g_assert_cmphex(amd_readl(b, AMD_DMA_WBC), ==, 2 * SECTOR);

        start_ti_dma(b, 2 * SECTOR, &dma);
        wait_for_status_phase(b, 2 * SECTOR);
        finish(b);
        expect_moved(b, dir, 7 * SECTOR, ADDR, 2 * SECTOR);
    }
    assert_direct(b, 2);
    esp_test_end(b);
}

/* Am53C974: memory descriptor lists */

/* Where the test puts them */
#define MDL                     (2 * MiB)

/* The page of the window that is the @n-th of a list */
static int mdl_page(int n)
{
    return (n * 53 + 11) % WINDOW_PAGES;
}

static void mdl_write(Board *b, int pages)
{
    int i;

    for (i = 0; i < pages; i++) {
        /* The low bits are ignored. */
        qtest_writel(b->qts, MDL + 4 * i, b->frame[mdl_page(i)] | 0xfff);
    }
    /* The list has no end mark, and nothing behind it shall matter. */
    qtest_writel(b->qts, MDL + 4 * pages, 0xdead0000);
}

static void mdl_expect_moved(Board *b, Direction dir, uint32_t start,
                             uint32_t offset, uint32_t len)
{
    while (len) {
        uint32_t n = MIN(len, PAGE - offset % PAGE);

        expect_moved(b, dir, start,
                     mdl_page(offset / PAGE) * PAGE + offset % PAGE, n);
        start += n;
        offset += n;
        len -= n;
    }
}

/* The working registers @end bytes after the beginning of the first page */
static void mdl_assert(Board *b, uint32_t end)
{
    int last = (end - 1) / PAGE;

    g_assert_cmphex(amd_readl(b, AMD_DMA_WAC), ==,
                    b->frame[mdl_page(last)] + end - last * PAGE);
    g_assert_cmphex(amd_readl(b, AMD_DMA_WMAC), ==, MDL + last * 4);
}

static void mdl_move(Board *b, Direction dir, uint32_t offset, uint32_t len,
                     uint32_t part)
{
    uint32_t pos, n = 0;

    mdl_write(b, DIV_ROUND_UP(offset + len, PAGE));
    begin_command(b, dir, 7 * SECTOR, len);
    for (pos = 0; pos < len; pos += n) {
        uint32_t from = offset + pos;

        n = MIN(part, len - pos);
        start_ti_dma(b, n, &(DMA) {
            .dir = dir,
            .addr = from % PAGE,
            .count = n,
            .mdl = MDL + from / PAGE * 4,
        });
        if (pos + n < len) {
            wait_for_part(b);
            mdl_assert(b, from + n);
        }
    }
    wait_for_status_phase(b, n);
    mdl_assert(b, offset + len);
    finish(b);
    mdl_expect_moved(b, dir, 7 * SECTOR, offset, len);
}

static void test_mdl(const void *type)
{
    static const struct {
        uint32_t offset;
        uint32_t len;
    } list[] = {
        { 0, SECTOR },                  /* less than a page */
        { 0, PAGE },                    /* the last page is whole ... */
        { 0, 8 * PAGE },
        { 3000, 8 * PAGE },             /* ... or not, and the first not */
        { PAGE - 1, 2 * SECTOR },
        { PAGE - 512, SECTOR },
        { PAGE - 512, SCSI_BUFFER + SECTOR },
        { 17, 65 * PAGE },              /* more than QEMU reads at a time */
        { 0, 64 * PAGE },
    };
    Board *b = esp_test_begin(type);
    Direction dir;
    int i;

    for (dir = READ; dir <= WRITE; dir++) {
        for (i = 0; i < ARRAY_SIZE(list); i++) {
            mdl_move(b, dir, list[i].offset, list[i].len, list[i].len);
        }
    }
    assert_direct(b, 2 * ARRAY_SIZE(list));
    esp_test_end(b);
}

static void test_mdl_parts(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        mdl_move(b, dir, 0, 8 * PAGE, 2 * PAGE);
        mdl_move(b, dir, 3000, 8 * PAGE, 5000);
        mdl_move(b, dir, 1, 50 * PAGE, 33 * PAGE);
    }
    assert_direct(b, 0);
    assert_count(b, "partial", 6);
    esp_test_end(b);
}

/* The engine has more to move than the command. */
static void test_mdl_count_is_larger(const void *type)
{
    Board *b = esp_test_begin(type);
    Direction dir;

    for (dir = READ; dir <= WRITE; dir++) {
        mdl_write(b, 4);
        begin_command(b, dir, 7 * SECTOR, 2 * PAGE);
        start_ti_dma(b, 3 * PAGE, &(DMA) { dir, 0, 3 * PAGE, MDL });
        wait_for_status_phase(b, 2 * PAGE);
        /* The next byte would go to the third page. */
        g_assert_cmphex(amd_readl(b, AMD_DMA_WAC), ==, b->frame[mdl_page(2)]);
        g_assert_cmphex(amd_readl(b, AMD_DMA_WMAC), ==, MDL + 8);
        finish(b);
        mdl_expect_moved(b, dir, 7 * SECTOR, 0, 2 * PAGE);
    }
    assert_direct(b, 2);
    esp_test_end(b);
}

/* A list that ends where memory does: the engine stops, with an error. */
static void test_mdl_unreadable(const void *type)
{
    Board *b = esp_test_begin(type);
    const uint32_t end_of_ram = 32 * MiB;
    Interrupt i;

    qtest_writel(b->qts, end_of_ram - 4, b->frame[0]);
    begin_command(b, READ, 7 * SECTOR, 2 * PAGE);
    start_ti_dma(b, 2 * PAGE, &(DMA) { READ, 0, 2 * PAGE, end_of_ram - 4 });
    i = wait_for_interrupt(b);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    g_assert_cmphex(amd_readl(b, AMD_DMA_STATUS) & AMD_ERROR, ==, AMD_ERROR);
    finish(b);
    expect_moved(b, READ, 7 * SECTOR, 0, PAGE);

    begin_command(b, READ, 7 * SECTOR, PAGE);
    start_ti_dma(b, PAGE, &(DMA) { READ, 0, PAGE, end_of_ram });
    i = wait_for_interrupt(b);
    g_assert_cmphex(i.phase, ==, PHASE_STATUS);
    g_assert_cmphex(amd_readl(b, AMD_DMA_STATUS) & AMD_ERROR, ==, AMD_ERROR);
    finish(b);

    assert_direct(b, 0);
    assert_usable(b);
    esp_test_end(b);
}

/* SPARCstation 5: the IOMMU */

#define PAGE_OF(addr)           ((addr) / PAGE)

/* Pages that change between commands: the table is read anew. */
static void test_iommu_remap(const void *type)
{
    Board *b = esp_test_begin(type);
    int page = PAGE_OF(ADDR) + 1;
    int i;

    for (i = 0; i < 3; i++) {
        Direction dir;

        for (dir = READ; dir <= WRITE; dir++) {
            move_at_once(b, dir, 7 * SECTOR, ADDR, 4 * PAGE, 4 * PAGE);
        }
        /* Two pages change places: the window shows so. */
        assert_everything_as_it_shall_be(b);
        ss5_map(b, page, iopte(b->frame[page + 1]));
        ss5_map(b, page + 1, iopte(b->frame[page]));
        {
            uint32_t frame = b->frame[page];
            g_autofree uint8_t *swap = g_memdup2(b->memory + page * PAGE, PAGE);

            b->frame[page] = b->frame[page + 1];
            b->frame[page + 1] = frame;
            memcpy(b->memory + page * PAGE, b->memory + (page + 1) * PAGE,
                   PAGE);
            memcpy(b->memory + (page + 1) * PAGE, swap, PAGE);
        }
    }
    assert_direct(b, 6);
    test_end_and_discard(b);
}

static void iommu_clear_error(Board *b)
{
    qtest_writel(b->qts, SS5_IOMMU + IOMMU_AFSR, 0);
    qtest_writel(b->qts, SS5_IOMMU + IOMMU_AFAR, 0);
}

static void iommu_assert_error(Board *b, uint32_t addr)
{
    g_assert_cmphex(qtest_readl(b->qts, SS5_IOMMU + IOMMU_AFSR) &
                    IOMMU_AFSR_ERROR, ==, IOMMU_AFSR_ERROR);
    g_assert_cmphex(qtest_readl(b->qts, SS5_IOMMU + IOMMU_AFAR), ==,
                    DVMA_BASE + addr);
    iommu_clear_error(b);
}

/*
 * A page that the device may not touch: the IOMMU reports it, reads lose the
 * data that would go there, and writes take zeroes from it.
 */
static void test_iommu_fault(const void *type)
{
    Board *b = esp_test_begin(type);
    int page = PAGE_OF(ADDR) + 2;
    uint32_t before = page * PAGE - ADDR;
    uint32_t after = before + PAGE;
    uint32_t len = 4 * PAGE;

    ss5_map(b, page, 0);
    iommu_clear_error(b);

    begin_command(b, READ, 7 * SECTOR, len);
    start_ti(b, READ, ADDR, len);
    wait_for_status_phase(b, len);
    finish(b);
    expect_moved(b, READ, 7 * SECTOR, ADDR, before);
    expect_moved(b, READ, 7 * SECTOR + after, ADDR + after, len - after);
    iommu_assert_error(b, page * PAGE);

    begin_command(b, WRITE, 8 * SECTOR, len);
    start_ti(b, WRITE, ADDR, len);
    wait_for_status_phase(b, len);
    finish(b);
    expect_moved(b, WRITE, 8 * SECTOR, ADDR, len);
    memset(b->disk + 8 * SECTOR + before, 0, PAGE);
    iommu_assert_error(b, page * PAGE);

    /* May be read, but not written */
    ss5_map(b, page, iopte(b->frame[page]) & ~IOPTE_WRITE);
    begin_command(b, READ, 60 * SECTOR, len);
    start_ti(b, READ, ADDR, len);
    wait_for_status_phase(b, len);
    finish(b);
    expect_moved(b, READ, 60 * SECTOR, ADDR, before);
    expect_moved(b, READ, 60 * SECTOR + after, ADDR + after, len - after);
    iommu_assert_error(b, page * PAGE);
    move_at_once(b, WRITE, 9 * SECTOR, ADDR, len, len);

    assert_direct(b, 4);
    ss5_map(b, page, iopte(b->frame[page]));
    assert_usable(b);
    esp_test_end(b);
}

/*
 * The page behind RAM is that of registers.  A sector ends @bytes behind the
 * beginning of it, with a byte that has these bits.
 */
static void read_to_registers(const void *type, uint64_t registers,
                              uint32_t bytes, uint8_t mask, uint8_t value)
{
    Board *b = esp_test_begin(type);
    int page = PAGE_OF(ADDR) + 1;
    uint32_t addr = page * PAGE + bytes - SECTOR;
    uint32_t at = 0;

    while ((b->disk[at + SECTOR - 1] & mask) != value) {
        at += SECTOR;
        g_assert_cmpuint(at, <, DISK_SIZE);
    }
    ss5_map(b, page, iopte(registers));
    begin_command(b, READ, at, SECTOR);
    start_ti(b, READ, addr, SECTOR);
    wait_for_status_phase(b, SECTOR);
    finish(b);
    expect_moved(b, READ, at, addr, SECTOR - bytes);
    ss5_map(b, page, iopte(b->frame[page]));
    assert_direct(b, 1);
    assert_usable(b);
    esp_test_end(b);
}

/* The last register that is written is the command, to reset the SCSI bus. */
static void test_iommu_own_registers(const void *type)
{
    read_to_registers(type, SS5_ESP, (ESP_CMD + 1) * 4, 0xff, CMD_BUS_RESET);
}

/* The DMA controller resets the ESP. */
static void test_iommu_dma_registers(const void *type)
{
    read_to_registers(type, SS5_ESPDMA, ESPDMA_CSR + 4, ESPDMA_RESET,
                      ESPDMA_RESET);
}

/*
 * The DMA controller counts 24 bits of its address.  Where QEMU's goes on from
 * there is not how hardware does it, but it shall be the same for all data.
 */
static void test_window_edge(const void *type)
{
    Board *b = esp_test_begin(type);
    uint32_t edge = DVMA_BASE + 16 * MiB;
    DMA dma = { READ, edge - 2 * SECTOR, 4 * SECTOR };
    uint32_t entry = (edge - DVMA_BASE) / PAGE;

    ss5_map(b, entry - 1, iopte(b->frame[3]));
    ss5_map(b, entry, iopte(b->frame[5]));
    begin_command(b, READ, 7 * SECTOR, 4 * SECTOR);
    start_ti_dma(b, 4 * SECTOR, &dma);
    wait_for_status_phase(b, 4 * SECTOR);
    finish(b);
    expect_moved(b, READ, 7 * SECTOR, 4 * PAGE - 2 * SECTOR, 2 * SECTOR);
    expect_moved(b, READ, 9 * SECTOR, 5 * PAGE, 2 * SECTOR);
    assert_direct(b, 0);

    /* Up to the edge is not beyond it. */
    dma.addr -= 2 * SECTOR;
    begin_command(b, READ, 17 * SECTOR, 4 * SECTOR);
    start_ti_dma(b, 4 * SECTOR, &dma);
    wait_for_status_phase(b, 4 * SECTOR);
    finish(b);
    expect_moved(b, READ, 17 * SECTOR, 4 * PAGE - 4 * SECTOR, 4 * SECTOR);
    assert_direct(b, 1);
    esp_test_end(b);
}

/* All of them */

typedef struct Test {
    const char *name;
    GTestDataFunc fn;
} Test;

static const Test common_tests[] = {
    { "whole", test_whole },
    { "count-is-larger", test_count_is_larger },
    { "count-is-smaller", test_count_is_smaller },
    { "parts", test_parts },
    { "habit/learn", test_habit },
    { "habit/of-a-length", test_habit_of_a_length },
    { "habit/after-reset", test_habit_after_reset },
    { "inquiry", test_inquiry },
    { "no-dma", test_no_dma },
    { "pad/short", test_pad },
    { "pad/long", test_pad_long },
    { "nop-before-ti", test_nop_before_ti },
    { "error", test_error },
    { "stop-at-error", test_stop_at_error },
    { "dma-stop/in-flight", test_dma_stop },
    { "dma-stop/before-ti", test_dma_stop_before_ti },
    { "migrate/idle", test_migrate_idle },
    { "migrate/before-ti", test_migrate_before_ti },
    { "migrate/before-parts", test_migrate_before_parts },
    { "migrate/between-parts", test_migrate_between_parts },
    { "migrate/forged", test_migrate_forged },
    { "migrate/refused", test_migrate_refused },
    { "migrate/no-dma", test_migrate_no_dma },
    { "migrate/answer", test_migrate_answer },
    { "migrate/forged-answer", test_migrate_forged_answer },
    { "migrate/parameters", test_migrate_parameters },
    { "migrate/forged-flush", test_migrate_forged_flush },
    { "migrate/unit-attention", test_migrate_unit_attention },
    { "migrate/at-error", test_migrate_at_error },
    { "off", test_off },
    { }
};

static const Test amd_tests[] = {
    { "dma-count-is-smaller", test_dma_count_is_smaller },
    { "dma-count-is-larger", test_dma_count_is_larger },
    { "dma-direction", test_dma_direction },
    { "ti-replaced", test_ti_replaced },
    { "mdl/whole", test_mdl },
    { "mdl/parts", test_mdl_parts },
    { "mdl/count-is-larger", test_mdl_count_is_larger },
    { "mdl/unreadable", test_mdl_unreadable },
    { }
};

static const Test ss5_tests[] = {
    { "iommu/remap", test_iommu_remap },
    { "iommu/fault", test_iommu_fault },
    { "iommu/own-registers", test_iommu_own_registers },
    { "iommu/dma-registers", test_iommu_dma_registers },
    { "window-edge", test_window_edge },
    { }
};

static void add_tests(const BoardType *type, const Test *test)
{
    for (; test->name; test++) {
        g_autofree char *path = g_strdup_printf("esp-dma/%s/%s", type->name,
                                                test->name);

        qtest_add_data_func(path, type, test->fn);
    }
}

static void add_endings(const BoardType *type)
{
    EndingTest t = { .type = type };

    for (t.ending = 0; t.ending < ENDINGS; t.ending++) {
        if (t.ending == DMA_ABORT && type == &ss5) {
            continue;
        }
        for (t.dir = READ; t.dir <= WRITE; t.dir++) {
            int i;

            for (i = 0; i < 2; i++) {
                g_autofree char *path =
                    g_strdup_printf("esp-dma/%s/%s/%s/%s", type->name,
                                    ending_name[t.ending], dir_name(t.dir),
                                    i ? "in-flight" : "before-ti");

                t.in_flight = i;
                qtest_add_data_func_full(path, g_memdup2(&t, sizeof(t)),
                                         test_ending, g_free);
            }
        }
    }
}

int main(int argc, char **argv)
{
    const char *arch = qtest_get_arch();
    int ret;

    g_test_init(&argc, &argv, NULL);
    if (!strcmp(arch, "sparc")) {
        add_tests(&ss5, common_tests);
        add_tests(&ss5, ss5_tests);
        add_endings(&ss5);
    } else {
        add_tests(&am53c974, common_tests);
        add_tests(&am53c974, amd_tests);
        add_endings(&am53c974);
        qtest_add_data_func("esp-dma/DC-390/whole", &dc390, test_whole);
        qtest_add_data_func("esp-dma/DC-390/parts", &dc390, test_parts);
        qtest_add_data_func("esp-dma/DC-390/mdl/whole", &dc390, test_mdl);
    }
    ret = g_test_run();
    g_clear_pointer(&shared_board, board_discard);
    return ret;
}
