/*
 * LSI 53C895A: data that scripts move, and when it can be seen
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Everything but the counters must be the same whether data goes directly to
 * and from guest memory or through a buffer, so most tests do not care, and
 * then ask the counters which way it was.  A QEMU without the counters runs the
 * same tests.
 */

#include "qemu/osdep.h"
#include "block/nvme.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "dma-test-util.h"
#include "hw/pci/pci_regs.h"
#include "lsi-scripts.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"

#define HBA_SLOT                5
#define HBA_REGISTERS_BAR       1
#define HBA_SCRIPTS_RAM_BAR     2

/* Guest memory out of the way of all regions */
#define LIBRARY                 (4 * MiB)
#define BLOCKS                  (LIBRARY + 64 * KiB)    /* of script, by tag */
#define   BLOCK_SIZE            256
#define STRUCTURES              (LIBRARY + 128 * KiB)   /* of commands */
#define   STRUCTURE_SIZE        64
#define   MSG_OUT_OFFSET        0
#define   CDB_OFFSET            8
#define   STATUS_OFFSET         24
#define   MSG_IN_OFFSET         28
#define SCRIPT                  (LIBRARY + 256 * KiB)
#define TABLES                  (LIBRARY + 512 * KiB)
#define SCRATCH                 (LIBRARY + 768 * KiB)

/* Where scripts stop */
#define DONE                    0x600d
#define UNEXPECTED              0xbad
#define MARK                    0x1234

/* PCI Local Bus Specification 3.0, 3.2.2.3.2 */
#define PCI_CONFIG_ADDRESS      0xcf8
#define   PCI_CONFIG_ENABLE     0x80000000
#define PCI_CONFIG_DATA         0xcfc

/* SPC and SBC */
#define TEST_UNIT_READY         0x00
#define INQUIRY                 0x12
#define ALLOW_MEDIUM_REMOVAL    0x1e
#define READ_10                 0x28
#define WRITE_10                0x2a
#define SYNCHRONIZE_CACHE_10    0x35
#define WRITE_SAME_10           0x41
#define GOOD                    0x00
#define CHECK_CONDITION         0x02
#define NO_STATUS               0xff

#define UNTAGGED                -1

#define CHIP_SETUP(chip, properties, disk_properties, ...) { \
        .machine = "-device " chip ",id=hba,addr=5" properties " " \
                   "-device scsi-hd,bus=hba.0,scsi-id=0,drive=drive0," \
                   "id=disk0" disk_properties " " \
                   "-device scsi-hd,bus=hba.0,scsi-id=1,drive=drive1," \
                   "id=disk1" disk_properties, \
        .disks = 2, \
        .hba_devfn = QPCI_DEVFN(HBA_SLOT, 0), \
        .hba_bar = HBA_REGISTERS_BAR, \
        __VA_ARGS__ \
    }
#define HBA_SETUP(...) CHIP_SETUP("lsi53c895a", __VA_ARGS__)

/* blkdebug: accesses to sector 22 fail; those to a slow disk take 20 ms */
#define SPECIAL_SECTOR          22
#define INJECT                  ",file.inject-error.0."
#define BAD_DISK                INJECT "event=none" INJECT "sector=22" \
                                INJECT "errno=5"
#define SLOW_DISK               INJECT "event=none" INJECT "errno=0" \
                                INJECT "delay-ns=20000000"
#define LESS_SLOW_DISK          INJECT "event=none" INJECT "errno=0" \
                                INJECT "delay-ns=5000000"
#define SLOWEST_DISK            INJECT "event=none" INJECT "errno=0" \
                                INJECT "delay-ns=400000000"
#define FULL_ONCE               INJECT "event=none" INJECT "sector=22" \
                                INJECT "errno=28" INJECT "once=on"

static const Setup plain = HBA_SETUP("", "");
static const Setup off = HBA_SETUP(",direct-dma=off", "");
static const Setup sym810 = CHIP_SETUP("lsi53c810", "", "");
static const Setup sym810_off = CHIP_SETUP("lsi53c810", ",direct-dma=off", "");
static const Setup big = HBA_SETUP("", " -m 5G");
static const Setup bad = HBA_SETUP("", "", .drive[0] = BAD_DISK);
static const Setup slow = HBA_SETUP("", "", .drive[0] = SLOW_DISK);
static const Setup slowest = HBA_SETUP("", "", .drive[0] = SLOWEST_DISK);
static const Setup slow_both = HBA_SETUP("", "", .drive[0] = LESS_SLOW_DISK,
                                         .drive[1] = SLOW_DISK);
static const Setup slow_second = HBA_SETUP("", "",
                                           .drive[0] = LESS_SLOW_DISK,
                                           .drive[1] = SLOWEST_DISK);
static const Setup full = HBA_SETUP("", ",werror=stop", .drive[0] = FULL_ONCE);

/* Target 2 answers at once, or when a throttle lets it */
static const Setup null = HBA_SETUP(" -blockdev driver=null-co,node-name=null,"
                                    "read-zeroes=on,size=1048576 "
                                    "-device scsi-hd,id=disk2,bus=hba.0,"
                                    "scsi-id=2,drive=null", "");

/* Another controller has the same disk. */
static const Setup shared = HBA_SETUP(" -device nvme,serial=0,addr=6,"
                                      "drive=drive0,share-rw=on",
                                      ",share-rw=on", .q35 = true,
                                      .blockdev = "", .drive[0] = SLOW_DISK);
#define NVME_SLOT               6

/* A SCSI command as a script sends it */
typedef struct Command {
    int target;
    int tag;
    uint8_t identify;
    uint8_t cdb[10];
    uint32_t structure;
    Request req;
} Command;

typedef struct Chip {
    Machine *m;
    Script s;
    Command cmd;
    uint32_t script;            /* where script_start() puts it */
    uint32_t start;
    uint32_t dispatch;
    QDict *before;              /* counters, or NULL */
} Chip;

/* Registers */

static uint8_t chip_readb(Chip *c, int reg)
{
    return qpci_io_readb(c->m->hba, c->m->hba_bar, reg);
}

static uint32_t chip_readl(Chip *c, int reg)
{
    return qpci_io_readl(c->m->hba, c->m->hba_bar, reg);
}

static void chip_writeb(Chip *c, int reg, uint8_t value)
{
    qpci_io_writeb(c->m->hba, c->m->hba_bar, reg, value);
}

static void chip_writel(Chip *c, int reg, uint32_t value)
{
    qpci_io_writel(c->m->hba, c->m->hba_bar, reg, value);
}

static void chip_run(Chip *c, uint32_t addr)
{
    chip_writel(c, DSP, addr);
}

static void chip_continue(Chip *c)
{
    chip_writeb(c, DCNTL, DCNTL_STD);
}

static bool chip_has_stopped(Chip *c)
{
    return chip_readb(c, ISTAT0) & (ISTAT0_DIP | ISTAT0_SIP);
}

/* Wait until the script stops; returns SIST0 << 8 | DSTAT */
static uint16_t chip_wait(Chip *c)
{
    int64_t deadline = patience_ends();
    uint8_t sist0;

    while (!chip_has_stopped(c)) {
        /* After 500 instructions the chip makes a pause */
        qtest_clock_step(c->m->qts, NANOSECONDS_PER_SECOND / 1000);
        wait_before_poll(deadline, "interrupt");
    }
    sist0 = chip_readb(c, SIST0);
    return sist0 << 8 | (chip_readb(c, DSTAT) & ~DSTAT_DFE);
}

static void chip_expect_int(Chip *c, uint32_t value)
{
    g_assert_cmphex(chip_wait(c), ==, DSTAT_SIR);
    g_assert_cmphex(chip_readl(c, DSPS), ==, value);
}

static uint8_t memory_readb(Chip *c, uint32_t addr)
{
    return qtest_readb(c->m->qts, addr);
}

static void assert_memory_is(Chip *c, uint64_t addr, const uint8_t *want,
                             size_t len)
{
    g_autofree uint8_t *got = g_malloc(len);

    qtest_memread(c->m->qts, addr, got, len);
    g_assert(!memcmp(got, want, len));
}

/* Counters */

static QDict *counters(Machine *m)
{
    QDict *answer = qtest_qmp(m->qts, "{ 'execute': 'x-query-dma' }");
    QDict *found = NULL;
    const QListEntry *e;

    if (qdict_haskey(answer, "return")) {
        QDict *all = qdict_get_qdict(answer, "return");

        QLIST_FOREACH_ENTRY(qdict_get_qlist(all, "devices"), e) {
            QDict *dev = qobject_to(QDict, qlist_entry_obj(e));

            if (!strcmp(qdict_get_str(dev, "qom-path"),
                        "/machine/peripheral/hba")) {
                found = qobject_ref(dev);
            }
        }
        g_assert(found);
    }
    qobject_unref(answer);
    return found;
}

/* The sum of a list of counters, or the one of them whose @key is @name */
static int64_t count(QDict *dev, const char *list, const char *key,
                     const char *value, const char *name)
{
    const QListEntry *e;
    int64_t sum = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(dev, list), e) {
        QDict *item = qobject_to(QDict, qlist_entry_obj(e));

        if (!name || !strcmp(qdict_get_str(item, key), name)) {
            sum += qdict_get_int(item, value);
        }
    }
    return sum;
}

static int64_t count_buffered(QDict *dev, const char *name)
{
    return count(dev, "buffered", "reason", "requests", name);
}

static int64_t count_barriers(QDict *dev, const char *name)
{
    return count(dev, "barriers", "cause", "count", name);
}

/*
 * Since the last call, so many commands were direct, one was buffered if
 * @reason is not NULL, and one barrier was met if @cause is not NULL.
 */
static void expect_counters(Chip *c, int direct, const char *reason,
                            const char *cause)
{
    QDict *before = c->before;
    QDict *after = before ? counters(c->m) : NULL;

    if (!after) {
        return;
    }
    g_assert_cmpint(qdict_get_int(after, "direct") -
                    qdict_get_int(before, "direct"), ==, direct);
    g_assert_cmpint(count_buffered(after, reason) -
                    count_buffered(before, reason), ==, !!reason);
    g_assert_cmpint(count_buffered(after, NULL) -
                    count_buffered(before, NULL), ==, !!reason);
    g_assert_cmpint(count_barriers(after, cause) -
                    count_barriers(before, cause), ==, !!cause);
    g_assert_cmpint(count_barriers(after, NULL) -
                    count_barriers(before, NULL), ==, !!cause);
    qobject_unref(before);
    c->before = after;
}

/* Commands */

/* Prepare a command without data, or with that of @cmd->req */
static void command_prepare(Chip *c, Command *cmd, int n)
{
    QTestState *qts = c->m->qts;
    uint8_t msg[] = { cmd->identify, MSG_SIMPLE_QUEUE_TAG, cmd->tag };

    cmd->structure = STRUCTURES + n * STRUCTURE_SIZE;
    qtest_memwrite(qts, cmd->structure + MSG_OUT_OFFSET, msg, sizeof(msg));
    qtest_memwrite(qts, cmd->structure + CDB_OFFSET, cmd->cdb,
                   sizeof(cmd->cdb));
    qtest_writeb(qts, cmd->structure + STATUS_OFFSET, NO_STATUS);
}

static uint8_t command_status(Chip *c, const Command *cmd)
{
    return memory_readb(c, cmd->structure + STATUS_OFFSET);
}

static void command_init(Command *cmd, int target, int tag)
{
    *cmd = (Command) {
        .target = target,
        .tag = tag,
        .identify = MSG_IDENTIFY | IDENTIFY_DISC_PRIV,
    };
}

/* @blocks: 0 for as many as the list has room for */
static void command_read_write(Chip *c, Command *cmd, Direction dir, int target,
                               int tag, uint32_t lba, uint32_t blocks,
                               const char *list)
{
    command_init(cmd, target, tag);
    request_init(c->m, &cmd->req, dir, target, lba * SECTOR, blocks * SECTOR,
                 list);
    cmd->cdb[0] = dir == READ ? READ_10 : WRITE_10;
    stl_be_p(&cmd->cdb[2], lba);
    stw_be_p(&cmd->cdb[7], cmd->req.bytes / SECTOR);
}

static Phase data_phase(const Command *cmd)
{
    return cmd->req.dir == READ ? DATA_IN : DATA_OUT;
}

static void emit_select(Script *s, const Command *cmd, uint32_t otherwise)
{
    select_atn(s, cmd->target, otherwise);
    move(s, MESSAGE_OUT, cmd->structure + MSG_OUT_OFFSET,
         cmd->tag == UNTAGGED ? 1 : 3);
    move(s, COMMAND, cmd->structure + CDB_OFFSET, sizeof(cmd->cdb));
}

static void emit_status(Script *s, const Command *cmd)
{
    move(s, STATUS, cmd->structure + STATUS_OFFSET, 1);
    move(s, MESSAGE_IN, cmd->structure + MSG_IN_OFFSET, 1);
    clear_ack(s);
    wait_disconnect(s);
}

/* The bytes with which a target identifies itself when it reselects */
static void emit_reselected(Script *s, const Command *cmd)
{
    move(s, MESSAGE_IN, cmd->structure + MSG_IN_OFFSET, 1);
    clear_ack(s);
    if (cmd->tag != UNTAGGED) {
        move(s, MESSAGE_IN, cmd->structure + MSG_IN_OFFSET + 1, 2);
        clear_ack(s);
    }
}

/*
 * A script that sends the chip's command and lets the target do what it
 * likes: disconnect before or after its data, or never.  The caller emits what
 * the data phase does, and script_finish() comes last.
 */
static void script_start(Chip *c)
{
    Script *s = &c->s;
    const Command *cmd = &c->cmd;
    uint32_t when_msg_in, if_data, if_status, if_disconnect;

    command_prepare(c, &c->cmd, 0);
    script_begin(s, c->m->qts, c->script);
    c->start = s->here;
    emit_select(s, cmd, 0);

    c->dispatch = s->here;
    when_msg_in = jump(s, WHEN_PHASE(MESSAGE_IN), 0);
    if_data = jump(s, IF_PHASE(data_phase(cmd)), 0);
    if_status = jump(s, IF_PHASE(STATUS), 0);
    interrupt(s, ALWAYS, UNEXPECTED);

    land(s, when_msg_in);
    move(s, MESSAGE_IN, cmd->structure + MSG_IN_OFFSET, 1);
    if_disconnect = jump(s, IF_DATA(MSG_DISCONNECT), 0);
    clear_ack(s);
    jump(s, ALWAYS, c->dispatch);

    land(s, if_disconnect);
    clear_ack(s);
    wait_disconnect(s);
    wait_reselect(s, 0);
    emit_reselected(s, cmd);
    jump(s, ALWAYS, c->dispatch);

    land(s, if_status);
    emit_status(s, cmd);
    interrupt(s, ALWAYS, DONE);

    land(s, if_data);
}

static void script_finish(Chip *c)
{
    jump(&c->s, ALWAYS, c->dispatch);
    script_end(&c->s);
    chip_run(c, c->start);
}

static const Entry *list_entry(const Command *cmd, int i)
{
    return &g_array_index(cmd->req.list, Entry, i);
}

static void emit_moves(Chip *c, int from, int to)
{
    int i;

    for (i = from; i < to; i++) {
        const Entry *e = list_entry(&c->cmd, i);

        move(&c->s, data_phase(&c->cmd), entry_address(c->m, e), e->len);
    }
}

/* Until the target asks for its status to be fetched: no script runs then */
static void wait_for_status_phase(Chip *c)
{
    int64_t deadline = patience_ends();

    while ((chip_readb(c, SSTAT1) & SSTAT1_PHASE) != STATUS) {
        wait_before_poll(deadline, "status phase");
    }
}

static void expect_done(Chip *c, uint8_t status)
{
    chip_expect_int(c, DONE);
    g_assert_cmphex(command_status(c, &c->cmd), ==, status);
}

static void expect_good(Chip *c)
{
    expect_done(c, GOOD);
    expect_transfer(c->m, &c->cmd.req, c->cmd.req.bytes);
    request_free(&c->cmd.req);
    assert_everything(c->m);
}

/* One command, as a driver does it */
static void run_command(Chip *c, Direction dir, int target, uint32_t lba,
                        const char *list)
{
    command_read_write(c, &c->cmd, dir, target, 3, lba, 0, list);
    script_start(c);
    emit_moves(c, 0, c->cmd.req.list->len);
    script_finish(c);
    expect_good(c);
}

static uint8_t test_unit_ready(Chip *c, int target)
{
    command_init(&c->cmd, target, UNTAGGED);
    script_start(c);
    script_finish(c);
    chip_expect_int(c, DONE);
    return command_status(c, &c->cmd);
}

static void clear_attention_of(Chip *c, int target)
{
    int i;

    for (i = 0; i < 3 && test_unit_ready(c, target) != GOOD; i++) {
        /* Power on, reset, or bus device reset occurred */
    }
    g_assert_cmphex(test_unit_ready(c, target), ==, GOOD);
}

static void clear_unit_attention(Chip *c)
{
    int target;

    for (target = 0; target < 2; target++) {
        clear_attention_of(c, target);
    }
}

/* The chip has been reset, or there is another one: count from now on */
static void chip_recount(Chip *c)
{
    if (c->before) {
        qobject_unref(c->before);
    }
    c->before = counters(c->m);
}

static void chip_begin(Chip *c, const Setup *setup)
{
    *c = (Chip) { .m = test_begin(setup), .script = SCRIPT };
    clear_unit_attention(c);
    c->before = counters(c->m);
}

static void chip_end(Chip *c)
{
    request_free(&c->cmd.req);
    if (c->before) {
        qobject_unref(c->before);
    }
    test_end(c->m);
}

/* Nothing that a test did has an effect on later commands */
static void expect_usable(Chip *c)
{
    clear_unit_attention(c);
    run_command(c, WRITE, 0, 100, "r8192");
    run_command(c, READ, 0, 101, "r3584+r4096");
    run_command(c, READ, 1, 300, "m512");
    expect_counters(c, 3, NULL, NULL);
}

/* Lists */

typedef struct LsiTest {
    Direction dir;
    const char *list;
    const char *cause;
} LsiTest;

static void add_test(const char *name, Direction dir, const char *list,
                     const char *cause, GTestDataFunc fn)
{
    LsiTest *t = g_new(LsiTest, 1);
    g_autofree char *path = g_strdup_printf("lsi-dma/%s/%s/%s", name,
                                            dir_name(dir), list);

    *t = (LsiTest) { .dir = dir, .list = list, .cause = cause };
    qtest_add_data_func_full(path, t, fn, g_free);
}

static void run_list(const Setup *setup, const LsiTest *t)
{
    bool enabled = !strstr(setup->machine, "direct-dma=off");
    Chip c;

    chip_begin(&c, setup);
    run_command(&c, t->dir, 0, 7, t->list);
    expect_counters(&c, enabled, enabled ? NULL : "disabled", NULL);
    chip_end(&c);
}

static void test_list(const void *data)
{
    run_list(&plain, data);
}

static void test_off(const void *data)
{
    run_list(&off, data);
}

static void test_810_list(const void *data)
{
    run_list(&sym810, data);
}

static void test_810_off(const void *data)
{
    run_list(&sym810_off, data);
}

/* The order of entries matters if it is memory that is written */
static void test_overlap(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &plain);
    run_command(&c, t->dir, 0, 7, t->list);
    if (t->dir == READ) {
        expect_counters(&c, 0, "barrier", "overlap");
    } else {
        expect_counters(&c, 1, NULL, NULL);
    }
    chip_end(&c);
}

static void test_long(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &plain);
    run_command(&c, t->dir, 0, 7, t->list);
    expect_counters(&c, 0, "barrier", "list-length");
    chip_end(&c);
}

/* Addressing modes */

static void test_indirect(const void *data)
{
    const LsiTest *t = data;
    Chip c;
    int i;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    script_start(&c);
    for (i = 0; i < c.cmd.req.list->len; i++) {
        const Entry *e = list_entry(&c.cmd, i);
        uint32_t pointer = TABLES + 4 * i;

        qtest_writel(c.m->qts, pointer, entry_address(c.m, e));
        move_indirect(&c.s, data_phase(&c.cmd), pointer, e->len);
    }
    script_finish(&c);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);
    chip_end(&c);
}

/* Entries lie before and behind what DSA points to */
static void run_table(Chip *c, const LsiTest *t)
{
    int i, entries;

    command_read_write(c, &c->cmd, t->dir, 0, 3, 7, 0, t->list);
    entries = c->cmd.req.list->len;
    script_start(c);
    for (i = 0; i < entries; i++) {
        const Entry *e = list_entry(&c->cmd, i);
        int32_t offset = 8 * (i - entries / 2);

        qtest_writel(c->m->qts, TABLES + KiB + offset, e->len);
        qtest_writel(c->m->qts, TABLES + KiB + offset + 4,
                     entry_address(c->m, e));
        move_table(&c->s, data_phase(&c->cmd), offset);
    }
    chip_writel(c, DSA, TABLES + KiB);
    script_finish(c);
    expect_good(c);
    expect_counters(c, 1, NULL, NULL);
}

static void test_table(const void *data)
{
    Chip c;

    chip_begin(&c, &plain);
    run_table(&c, data);
    chip_end(&c);
}

/* Memory above 4 GiB, in which no region lies */
#define HIGH_MEMORY             (4 * GiB + 1 * MiB)

typedef enum Addressing {
    DIRECT_64,
    TABLE_40,
    TABLE_64,
} Addressing;

/* As script_start() to script_finish(): each direct MOVE has a third word */
static void run_script_64(Chip *c)
{
    Command *cmd = &c->cmd;
    Script *s = &c->s;
    uint32_t when_data, if_data_after, when_status;
    int i;

    command_prepare(c, cmd, 0);
    script_begin(s, c->m->qts, SCRIPT);
    select_atn(s, cmd->target, 0);
    move64(s, MESSAGE_OUT, cmd->structure + MSG_OUT_OFFSET, 3);
    move64(s, COMMAND, cmd->structure + CDB_OFFSET, sizeof(cmd->cdb));
    when_data = jump(s, WHEN_PHASE(data_phase(cmd)), 0);

    /* The target disconnects, before its data or after it */
    c->dispatch = s->here;
    move64(s, MESSAGE_IN, SCRATCH, 2);
    wait_disconnect(s);
    wait_reselect(s, 0);
    move64(s, MESSAGE_IN, SCRATCH, 1);
    move64(s, MESSAGE_IN, SCRATCH, 2);
    if_data_after = jump(s, WHEN_PHASE(data_phase(cmd)), 0);
    when_status = s->here;
    move64(s, STATUS, cmd->structure + STATUS_OFFSET, 1);
    move64(s, MESSAGE_IN, SCRATCH, 1);
    clear_ack(s);
    wait_disconnect(s);
    interrupt(s, ALWAYS, DONE);

    land(s, when_data);
    land(s, if_data_after);
    for (i = 0; i < 4; i++) {
        move64(s, data_phase(cmd), HIGH_MEMORY + i * SECTOR, SECTOR);
    }
    jump(s, WHEN_PHASE(STATUS), when_status);
    jump(s, ALWAYS, c->dispatch);
    script_end(s);
    chip_run(c, SCRIPT);
}

/* Register of the upper half of an address; 0 to 15 are SCRATCHC to R */
static int selected_register(int selector)
{
    static const int registers[] = { MMRS, MMWS, SFS, DRS, SBMS, DBMS };

    return selector < 16 ? SCRATCHC + 4 * selector : registers[selector - 16];
}

static void run_high(Chip *c, Direction dir, Addressing mode, int selector)
{
    static const uint8_t ccntl1[] = {
        [DIRECT_64] = CCNTL1_EN64DBMV,
        [TABLE_40] = CCNTL1_EN64TIBMV | CCNTL1_64TIMOD,
        [TABLE_64] = CCNTL1_EN64TIBMV,
    };
    QTestState *qts = c->m->qts;
    uint8_t *disk = c->m->image[0] + 7 * SECTOR;
    uint32_t upper = HIGH_MEMORY >> 32;
    int i;

    command_read_write(c, &c->cmd, dir, 0, 3, 7, 4, "r2048@0");
    if (dir == READ) {
        qtest_memset(qts, HIGH_MEMORY, 0, 2 * KiB);
    } else {
        /* Something else than what the disk holds */
        memcpy(disk, c->m->image[0] + DISK_SIZE / 2 + selector * KiB, 2 * KiB);
        qtest_memwrite(qts, HIGH_MEMORY, disk, 2 * KiB);
    }
    chip_writeb(c, CCNTL1, ccntl1[mode]);
    if (mode == DIRECT_64) {
        run_script_64(c);
    } else {
        if (mode == TABLE_64) {
            chip_writel(c, selected_register(selector), upper);
        }
        script_start(c);
        for (i = 0; i < 4; i++) {
            qtest_writel(qts, TABLES + 8 * i, SECTOR |
                         (mode == TABLE_40 ? upper : selector) << 24);
            qtest_writel(qts, TABLES + 8 * i + 4,
                         (uint32_t)HIGH_MEMORY + i * SECTOR);
            move_table(&c->s, data_phase(&c->cmd), 8 * i);
        }
        chip_writel(c, DSA, TABLES);
        script_finish(c);
    }
    expect_done(c, GOOD);
    assert_memory_is(c, HIGH_MEMORY, disk, 2 * KiB);
    request_free(&c->cmd.req);
    expect_counters(c, 1, NULL, NULL);

    chip_writeb(c, CCNTL1, 0);
    chip_writel(c, DBMS, 0);
    if (mode == TABLE_64) {
        chip_writel(c, selected_register(selector), 0);
    }
    assert_everything(c->m);
}

static void test_direct_64(void)
{
    Chip c;

    chip_begin(&c, &big);
    run_high(&c, READ, DIRECT_64, 0);
    run_high(&c, WRITE, DIRECT_64, 0);
    chip_end(&c);
}

static void test_table_40(void)
{
    Chip c;

    chip_begin(&c, &big);
    run_high(&c, READ, TABLE_40, 0);
    run_high(&c, WRITE, TABLE_40, 0);
    chip_end(&c);
}

static void test_table_64(void)
{
    Chip c;
    int selector;

    chip_begin(&c, &big);
    for (selector = 0; selector <= 0x15; selector++) {
        run_high(&c, READ, TABLE_64, selector);
        run_high(&c, WRITE, TABLE_64, selector);
    }
    chip_end(&c);
}

/* A script that lies in the chip's own RAM, and moves data there, too */
static void test_scripts_ram(const void *data)
{
    const LsiTest *t = data;
    QPCIBar bar;
    Chip c;

    chip_begin(&c, &plain);
    bar = qpci_iomap(c.m->hba, HBA_SCRIPTS_RAM_BAR, NULL);
    c.script = bar.addr + 4 * KiB;
    run_command(&c, t->dir, 0, 7, t->list);
    expect_counters(&c, 1, NULL, NULL);
    qpci_iounmap(c.m->hba, bar);
    chip_end(&c);
    machine_discard();
}

/* What is not collected */

static void test_no_disconnect(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    c.cmd.identify = MSG_IDENTIFY;
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    script_finish(&c);
    expect_good(&c);
    expect_counters(&c, 0, "no-disconnect", NULL);
    chip_end(&c);
}

/* Each instruction ends in an interrupt, which shows what it did */
static void test_single_step(const void *data)
{
    const LsiTest *t = data;
    uint16_t stopped;
    Chip c;

    chip_begin(&c, &plain);
    chip_writeb(&c, DCNTL, DCNTL_SSM);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    script_finish(&c);
    while ((stopped = chip_wait(&c)) == DSTAT_SSI) {
        chip_writeb(&c, DCNTL, DCNTL_SSM | DCNTL_STD);
    }
    g_assert_cmphex(stopped & DSTAT_SIR, ==, DSTAT_SIR);
    chip_writeb(&c, DCNTL, 0);
    g_assert_cmphex(command_status(&c, &c.cmd), ==, GOOD);
    expect_transfer(c.m, &c.cmd.req, c.cmd.req.bytes);
    expect_counters(&c, 0, "mode", NULL);
    chip_end(&c);
}

static void test_inquiry(void)
{
    static const char vendor[] = "QEMU    ";
    char buf[36];
    Chip c;

    chip_begin(&c, &plain);
    command_init(&c.cmd, 0, 3);
    c.cmd.cdb[0] = INQUIRY;
    c.cmd.cdb[4] = sizeof(buf);
    c.cmd.req.dir = READ;
    script_start(&c);
    move(&c.s, DATA_IN, SCRATCH, sizeof(buf));
    script_finish(&c);
    expect_done(&c, GOOD);
    qtest_memread(c.m->qts, SCRATCH, buf, sizeof(buf));
    g_assert(!memcmp(buf + 8, vendor, 8));
    expect_counters(&c, 0, "unsupported", NULL);
    chip_end(&c);
}

/* Barriers: what a script does between two MOVEs of a command */

/* The first entry of the list has been moved: look at it and change it */
static void check_first_entry(Chip *c)
{
    Command *cmd = &c->cmd;
    const Entry *e = list_entry(cmd, 0);
    uint64_t addr = entry_address(c->m, e);

    if (cmd->req.dir == READ) {
        assert_memory_is(c, addr, c->m->image[cmd->req.disk] + cmd->req.start,
                         e->len);
    } else {
        /* Too late to have an effect on the disk */
        qtest_memset(c->m->qts, addr, 0xee, e->len);
    }
}

/* Memory that check_first_entry() has changed */
static void restore_first_entry(Chip *c)
{
    const Entry *e = list_entry(&c->cmd, 0);

    if (c->cmd.req.dir == WRITE) {
        region_write(c->m, e->kind, e->offset,
                     c->m->region[e->kind].want + e->offset, e->len);
    }
}

static void finish_after_mark(Chip *c)
{
    expect_done(c, GOOD);
    expect_transfer(c->m, &c->cmd.req, c->cmd.req.bytes);
    restore_first_entry(c);
    assert_everything(c->m);
}

static void begin_barrier(Chip *c, const LsiTest *t)
{
    chip_begin(c, &plain);
    command_read_write(c, &c->cmd, t->dir, 0, 3, 7, 0, t->list);
    script_start(c);
    emit_moves(c, 0, 1);
}

static void interrupt_after(const LsiTest *t, int entries)
{
    Chip c;

    begin_barrier(&c, t);
    emit_moves(&c, 1, entries);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, entries, c.cmd.req.list->len);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    check_first_entry(&c);
    chip_continue(&c);
    finish_after_mark(&c);
    expect_counters(&c, 0, "barrier", "interrupt");
    expect_usable(&c);
    chip_end(&c);
}

static void test_interrupt(const void *data)
{
    interrupt_after(data, 1);
}

/* What has been collected fills the memory of a list. */
static void test_interrupt_after_64(const void *data)
{
    interrupt_after(data, 64);
}

static void test_interrupt_on_the_fly(const void *data)
{
    const LsiTest *t = data;
    int64_t deadline = patience_ends();
    Chip c;

    begin_barrier(&c, t);
    interrupt_on_the_fly(&c.s);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, 1, c.cmd.req.list->len);
    script_finish(&c);
    while (!(chip_readb(&c, ISTAT0) & ISTAT0_INTF)) {
        wait_before_poll(deadline, "interrupt on the fly");
    }
    check_first_entry(&c);
    chip_writeb(&c, ISTAT0, ISTAT0_INTF);
    chip_expect_int(&c, MARK);
    chip_continue(&c);
    finish_after_mark(&c);
    expect_counters(&c, 0, "barrier", "interrupt");
    chip_end(&c);
}

/* Conditions that are not met, jumps, and registers that nobody sees */
static void test_no_barrier(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    begin_barrier(&c, t);
    interrupt(&c.s, WHEN_PHASE(STATUS), UNEXPECTED);
    interrupt(&c.s, WHEN_NOT_PHASE(data_phase(&c.cmd)), UNEXPECTED);
    jump(&c.s, ALWAYS, c.s.here + 16);
    interrupt(&c.s, ALWAYS, UNEXPECTED);
    move_to_register(&c.s, SCRATCHA, 1);
    move_register_to_sfbr(&c.s, SCRATCHA);
    interrupt(&c.s, IF_DATA(2), UNEXPECTED);
    load(&c.s, SCRATCHB, 4, SCRATCH);
    clear_ack(&c.s);
    emit_moves(&c, 1, c.cmd.req.list->len);
    script_finish(&c);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);
    chip_end(&c);
}

/* A mark in memory, which the CPU could wait for */
static void test_store(const void *data)
{
    const LsiTest *t = data;
    int64_t deadline = patience_ends();
    Chip c;

    begin_barrier(&c, t);
    qtest_writel(c.m->qts, SCRATCH, 0);
    chip_writel(&c, SCRATCHA, MARK);
    store(&c.s, SCRATCHA, 4, SCRATCH);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, 1, c.cmd.req.list->len);
    script_finish(&c);
    while (qtest_readl(c.m->qts, SCRATCH) != MARK) {
        wait_before_poll(deadline, "mark in memory");
    }
    check_first_entry(&c);
    chip_expect_int(&c, MARK);
    chip_continue(&c);
    finish_after_mark(&c);
    expect_counters(&c, 0, "barrier", "instruction");
    chip_end(&c);
}

/* Two MOVEs to one buffer, which the script saves in between */
static void test_reuse_buffer(void)
{
    const Entry *e;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r1024@512+r1024@512");
    e = list_entry(&c.cmd, 0);
    script_start(&c);
    emit_moves(&c, 0, 1);
    memory_move(&c.s, SCRATCH, entry_address(c.m, e), e->len);
    emit_moves(&c, 1, 2);
    script_finish(&c);
    expect_done(&c, GOOD);
    assert_memory_is(&c, SCRATCH, c.m->image[0] + 7 * SECTOR, e->len);
    expect_transfer(c.m, &c.cmd.req, c.cmd.req.bytes);
    expect_counters(&c, 0, "barrier", "memory");
    chip_end(&c);
}

/* The same for WRITE: the script fills the buffer anew */
static void test_refill_buffer(void)
{
    uint8_t *disk;
    uint8_t first[1024], second[1024];
    const Entry *e;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, WRITE, 0, 3, 7, 0, "r1024@512+r1024@512");
    e = list_entry(&c.cmd, 0);
    qtest_memread(c.m->qts, entry_address(c.m, e), first, sizeof(first));
    memcpy(second, c.m->image[1], sizeof(second));
    qtest_memwrite(c.m->qts, SCRATCH, second, sizeof(second));
    script_start(&c);
    emit_moves(&c, 0, 1);
    memory_move(&c.s, entry_address(c.m, e), SCRATCH, e->len);
    emit_moves(&c, 1, 2);
    script_finish(&c);
    expect_done(&c, GOOD);
    disk = c.m->image[0] + 7 * SECTOR;
    memcpy(disk, first, sizeof(first));
    memcpy(disk + sizeof(first), second, sizeof(second));
    region_write(c.m, e->kind, e->offset, second, sizeof(second));
    expect_counters(&c, 0, "barrier", "memory");
    chip_end(&c);
}

/* A table entry that the script changes after it has been used */
static void test_change_table(void)
{
    QTestState *qts;
    const Entry *e;
    Chip c;
    int i;

    chip_begin(&c, &plain);
    qts = c.m->qts;
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r512@0+r512@4096");
    script_start(&c);
    for (i = 0; i < 2; i++) {
        e = list_entry(&c.cmd, i);
        qtest_writel(qts, TABLES + 8 * i, e->len);
        qtest_writel(qts, TABLES + 8 * i + 4, entry_address(c.m, e));
    }
    move_table(&c.s, DATA_IN, 0);
    memory_move(&c.s, TABLES, TABLES + 8, 8);
    move_table(&c.s, DATA_IN, 0);
    chip_writel(&c, DSA, TABLES);
    script_finish(&c);
    expect_good(&c);
    expect_counters(&c, 0, "barrier", "instruction");
    chip_end(&c);
}

/* The data is the address where the rest of it goes */
static void test_data_is_table(void)
{
    uint32_t target = STRUCTURES - 4 * KiB;
    uint8_t *disk;
    const Entry *e;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, WRITE, 0, 3, 7, 0, "r512@0");
    e = list_entry(&c.cmd, 0);
    disk = g_memdup2(c.m->image[0] + 7 * SECTOR, SECTOR);
    stl_le_p(disk, 508);
    stl_le_p(disk + 4, target);
    region_write(c.m, e->kind, e->offset, disk, SECTOR);
    script_start(&c);
    emit_moves(&c, 0, 1);
    script_finish(&c);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);

    /* 8 bytes of table, and 504 that go where it says */
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r512@4096");
    qtest_memset(c.m->qts, TABLES, 0, 8);
    qtest_memset(c.m->qts, target, 0, SECTOR);
    script_start(&c);
    move(&c.s, DATA_IN, TABLES, 8);
    move_indirect(&c.s, DATA_IN, TABLES + 4, 504);
    chip_writel(&c, DSA, TABLES);
    script_finish(&c);
    expect_done(&c, GOOD);
    assert_memory_is(&c, TABLES, disk, 8);
    assert_memory_is(&c, target, disk + 8, 504);
    expect_counters(&c, 0, "barrier", "memory");
    g_free(disk);
    chip_end(&c);
}

/* The data is a part of the script */
static void test_data_is_script(void)
{
    uint8_t code[SECTOR];
    const Entry *e;
    Script s;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, WRITE, 0, 3, 7, 0, "r512@0");
    e = list_entry(&c.cmd, 0);
    script_begin(&s, c.m->qts, SCRATCH);
    interrupt(&s, ALWAYS, MARK);
    script_end(&s);
    qtest_memread(c.m->qts, SCRATCH, code, 8);
    memset(code + 8, 0x55, sizeof(code) - 8);
    region_write(c.m, e->kind, e->offset, code, SECTOR);
    script_start(&c);
    emit_moves(&c, 0, 1);
    script_finish(&c);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);

    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r504@4096+r8@0");
    qtest_memset(c.m->qts, SCRATCH, 0, 16);
    script_start(&c);
    move(&c.s, DATA_IN, SCRATCH, 8);
    jump(&c.s, ALWAYS, SCRATCH);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    expect_counters(&c, 0, "barrier", "memory");
    machine_reset(c.m);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/* Lengths and directions that do not fit */

/* A script that moves less than the command wants */
static void test_less(const void *data)
{
    const LsiTest *t = data;
    size_t moved;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    moved = list_entry(&c.cmd, 0)->len;
    script_start(&c);
    emit_moves(&c, 0, 1);
    move(&c.s, STATUS, SCRATCH, 1);
    script_finish(&c);
    g_assert_cmphex(chip_wait(&c), ==, SIST0_MA << 8);
    check_first_entry(&c);
    g_assert_cmphex(chip_readl(&c, DBC) & 0xffffff, ==, 1);
    expect_counters(&c, 0, "barrier", "phase");

    /* Give up */
    machine_reset(c.m);
    restore_first_entry(&c);
    if (t->dir == READ) {
        expect_transfer(c.m, &c.cmd.req, moved);
    }
    request_free(&c.cmd.req);
    expect_usable(&c);
    chip_end(&c);
}

/* A MOVE that is longer than what the command has left */
static void test_more(const void *data)
{
    const LsiTest *t = data;
    const Entry *e;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 2, t->list);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    script_finish(&c);
    g_assert_cmphex(chip_wait(&c), ==, SIST0_MA << 8);
    g_assert_cmphex(chip_readl(&c, DBC) & 0xffffff, ==,
                    c.cmd.req.list_bytes - c.cmd.req.bytes);
    e = list_entry(&c.cmd, c.cmd.req.list->len - 1);
    g_assert_cmphex(chip_readl(&c, DNAD), ==, entry_address(c.m, e) + e->len -
                    (c.cmd.req.list_bytes - c.cmd.req.bytes));
    chip_run(&c, c.dispatch);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);
    chip_end(&c);
}

static void test_wrong_direction(const void *data)
{
    const LsiTest *t = data;
    const Entry *e;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    e = list_entry(&c.cmd, 1);
    script_start(&c);
    emit_moves(&c, 0, 1);
    move(&c.s, t->dir == READ ? DATA_OUT : DATA_IN, entry_address(c.m, e),
         e->len);
    script_finish(&c);
    g_assert_cmphex(chip_wait(&c), ==, SIST0_MA << 8);
    check_first_entry(&c);
    g_assert_cmphex(chip_readl(&c, DBC) & 0xffffff, ==, e->len);
    expect_counters(&c, 0, "barrier", "phase");

    /* Now as it should be */
    script_begin(&c.s, c.m->qts, SCRATCH);
    emit_moves(&c, 1, c.cmd.req.list->len);
    jump(&c.s, ALWAYS, c.dispatch);
    script_end(&c.s);
    chip_run(&c, SCRATCH);
    finish_after_mark(&c);
    chip_end(&c);
}

/* Scripts that do not let the target disconnect after the data */

static void emit_data_and_status(Chip *c)
{
    emit_moves(c, 0, c->cmd.req.list->len);
    emit_status(&c->s, &c->cmd);
    interrupt(&c->s, ALWAYS, DONE);
}

static void test_expect_status(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &slow);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_data_and_status(&c);
    script_finish(&c);
    expect_good(&c);
    expect_counters(&c, 1, NULL, "phase");
    expect_usable(&c);
    chip_end(&c);
}

static void test_interrupt_after_data(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &slow);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    interrupt(&c.s, ALWAYS, MARK);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    expect_transfer(c.m, &c.cmd.req, c.cmd.req.bytes);
    assert_everything(c.m);
    chip_continue(&c);
    expect_done(&c, GOOD);
    expect_counters(&c, 1, NULL, "interrupt");
    chip_end(&c);
}

/* The script looks at data, or changes it, before the target reselects */
static void test_memory_after_data(const void *data)
{
    const LsiTest *t = data;
    const Entry *e;
    Chip c;

    chip_begin(&c, &slow);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    e = list_entry(&c.cmd, 0);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    if (t->dir == READ) {
        memory_move(&c.s, SCRATCH, entry_address(c.m, e), e->len);
    } else {
        qtest_memset(c.m->qts, SCRATCH, 0xee, e->len);
        memory_move(&c.s, entry_address(c.m, e), SCRATCH, e->len);
    }
    script_finish(&c);
    expect_done(&c, GOOD);
    if (t->dir == READ) {
        assert_memory_is(&c, SCRATCH, c.m->image[0] + c.cmd.req.start, e->len);
    }
    expect_transfer(c.m, &c.cmd.req, c.cmd.req.bytes);
    restore_first_entry(&c);
    assert_everything(c.m);
    expect_counters(&c, 1, NULL, "memory");
    chip_end(&c);
}

/* Errors */

static void test_error(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &bad);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    script_finish(&c);
    expect_done(&c, CHECK_CONDITION);
    g_assert_cmpuint(expect_partial_transfer(c.m, &c.cmd.req), ==, 0);
    expect_counters(&c, 1, NULL, NULL);
    expect_usable(&c);
    chip_end(&c);
}

/* An error while the script waits at a barrier */
static void test_error_at_barrier(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &bad);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, 1);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, 1, c.cmd.req.list->len);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    if (t->dir == READ) {
        /* The data phase is over */
        chip_run(&c, c.dispatch);
    } else {
        chip_continue(&c);
    }
    expect_done(&c, CHECK_CONDITION);
    g_assert_cmpuint(expect_partial_transfer(c.m, &c.cmd.req), ==, 0);
    expect_counters(&c, 0, "barrier", "interrupt");
    expect_usable(&c);
    chip_end(&c);
}

/* A full disk stops the machine, and the request goes on with it */
static void test_disk_full(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &full);
    command_read_write(&c, &c.cmd, WRITE, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    script_finish(&c);
    qtest_qmp_eventwait(c.m->qts, "STOP");
    g_assert(!chip_has_stopped(&c));
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'cont' }");
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/*
 * Command queueing: many tags, each with a block of script
 *
 * The CPU starts one command after the other, and then lets the chip wait for
 * reselection.  Each command that starts or ends stops the script.
 */

#define STARTED                 0x57a7
#define TAG_DONE                0xd000
#define MAX_TAGS                256

typedef struct Queue {
    Chip c;
    Command cmd[MAX_TAGS];
    uint32_t start[MAX_TAGS];
    bool active[MAX_TAGS];
    int nactive;
    uint32_t idle;
    GArray *finished;           /* tags in the order of their ends */
} Queue;

static Queue *queue_begin(const Setup *setup)
{
    Queue *q = g_new0(Queue, 1);
    Script *s = &q->c.s;

    chip_begin(&q->c, setup);
    q->finished = g_array_new(false, false, sizeof(int));

    /* What the reselecting target says selects the block to go on with */
    script_begin(s, q->c.m->qts, LIBRARY);
    q->idle = s->here;
    wait_reselect(s, 0);
    move(s, MESSAGE_IN, SCRATCH, 1);
    clear_ack(s);
    move(s, MESSAGE_IN, SCRATCH, 1);
    clear_ack(s);
    move(s, MESSAGE_IN, SCRATCH, 1);
    clear_ack(s);
    move_sfbr_to_register(s, TEMP + 1);
    return_from_call(s);
    script_end(s);
    chip_writel(&q->c, TEMP, BLOCKS);
    return q;
}

static void queue_end(Queue *q)
{
    int tag;

    for (tag = 0; tag < MAX_TAGS; tag++) {
        request_free(&q->cmd[tag].req);
    }
    g_array_unref(q->finished);
    chip_end(&q->c);
    g_free(q);
}

/* Wait until the script stops, and keep account of what ended */
static uint32_t queue_wait(Queue *q)
{
    uint32_t value;

    g_assert_cmphex(chip_wait(&q->c), ==, DSTAT_SIR);
    value = chip_readl(&q->c, DSPS);
    if (value >= TAG_DONE && value < TAG_DONE + MAX_TAGS) {
        int tag = value - TAG_DONE;
        Command *cmd = &q->cmd[tag];

        g_assert(q->active[tag]);
        q->active[tag] = false;
        q->nactive--;
        g_array_append_val(q->finished, tag);
        g_assert_cmphex(command_status(&q->c, cmd), ==, GOOD);
        expect_transfer(q->c.m, &cmd->req, cmd->req.bytes);
    } else {
        g_assert_cmphex(value, ==, STARTED);
    }
    return value;
}

static void queue_start(Queue *q, Direction dir, int target, int tag,
                        uint32_t lba, const char *list)
{
    Chip *c = &q->c;
    Command *cmd = &q->cmd[tag];
    Script *s = &c->s;
    uint32_t if_status, when_status, if_msg_in, data;
    int i;

    request_free(&cmd->req);
    command_read_write(c, cmd, dir, target, tag, lba, 0, list);
    command_prepare(c, cmd, tag);

    /* The target has reselected, and identified itself */
    script_begin(s, c->m->qts, BLOCKS + tag * BLOCK_SIZE);
    if_status = jump(s, WHEN_PHASE(STATUS), 0);
    data = s->here;
    for (i = 0; i < cmd->req.list->len; i++) {
        const Entry *e = &g_array_index(cmd->req.list, Entry, i);

        move(s, data_phase(cmd), entry_address(c->m, e), e->len);
    }
    when_status = jump(s, WHEN_PHASE(STATUS), 0);
    if_msg_in = s->here;
    move(s, MESSAGE_IN, SCRATCH, 2);            /* DISCONNECT */
    clear_ack(s);
    wait_disconnect(s);
    interrupt(s, ALWAYS, STARTED);
    land(s, if_status);
    land(s, when_status);
    emit_status(s, cmd);
    interrupt(s, ALWAYS, TAG_DONE + tag);
    /* Here it begins */
    q->start[tag] = s->here;
    emit_select(s, cmd, q->idle + 8);
    jump(s, WHEN_PHASE(MESSAGE_IN), if_msg_in);
    jump(s, ALWAYS, data);
    g_assert_cmpuint(s->code->len, <=, BLOCK_SIZE);
    script_end(s);

    q->active[tag] = true;
    q->nactive++;
    do {
        chip_run(c, q->start[tag]);
    } while (queue_wait(q) != STARTED && q->active[tag]);
}

/* Wait for a target to reselect, and for what it has to say */
static void queue_continue(Queue *q)
{
    chip_run(&q->c, q->idle);
    queue_wait(q);
}

static void queue_drain(Queue *q)
{
    while (q->nactive) {
        queue_continue(q);
    }
}

static int nth_finished(Queue *q, int n)
{
    return g_array_index(q->finished, int, n);
}

/* Disk 0 does one request, and no other until resume_disk() */
static void suspend_disk(Queue *q)
{
    throttle(q->c.m, 0, 1, 0);
    queue_start(q, READ, 0, 0, 1, "r512");
    queue_drain(q);
}

static void resume_disk(Queue *q)
{
    throttle(q->c.m, 0, 0, 0);
}

/* Of a request with a short list: docs/devel/dma.rst, "Memory" */
#define TAG_MEMORY              (64 * KiB)

/* All at once */
static void test_all_tags(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&plain);
    int64_t memory;
    QDict *after;
    int tag;

    if (!q->c.before && t->dir == WRITE) {
        g_test_skip("QEMU has one write at a time");
        queue_end(q);
        return;
    }
    suspend_disk(q);
    memory = -anonymous_memory(q->c.m);
    for (tag = 0; tag < MAX_TAGS; tag++) {
        g_autofree char *list = g_strdup_printf("r512@%d", tag * 600);

        queue_start(q, t->dir, 0, tag, 3 * tag, list);
    }
    g_assert_cmpint(q->nactive, ==, MAX_TAGS);
    memory += anonymous_memory(q->c.m);
    g_test_message("%d requests take %" PRId64 " KiB", MAX_TAGS, memory / KiB);
    if (q->c.before) {
        g_assert_cmpint(memory, <=, MAX_TAGS * TAG_MEMORY);
    }
    resume_disk(q);
    queue_drain(q);
    assert_everything(q->c.m);
    after = q->c.before ? counters(q->c.m) : NULL;
    if (after) {
        g_assert_cmpint(qdict_get_int(after, "max-in-flight"), ==, MAX_TAGS);
        qobject_unref(after);
    }
    expect_counters(&q->c, 1 + MAX_TAGS, NULL, NULL);
    queue_end(q);
}

/* Commands overtake each other */
static void test_out_of_order(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&plain);

    if (!q->c.before && t->dir == WRITE) {
        g_test_skip("QEMU has one write at a time");
        queue_end(q);
        return;
    }
    blkdebug(q->c.m, 0, t->dir == READ ? "break read_aio A" :
                                         "break write_aio A");
    queue_start(q, t->dir, 0, 17, 7, "r512@0+r512@4096");
    queue_start(q, t->dir, 0, 16, 100, "r1024@1024");
    queue_start(q, t->dir, 1, 15, 7, "r1024@8192");
    while (q->nactive > 1) {
        queue_continue(q);
    }
    blkdebug(q->c.m, 0, "resume A");
    queue_drain(q);
    g_assert_cmpint(nth_finished(q, 2), ==, 17);
    assert_everything(q->c.m);
    expect_counters(&q->c, 3, NULL, NULL);
    queue_end(q);
}

/* Both disks, both directions, all tags, more than once */
static void test_mixed_queue(void)
{
    Queue *q = queue_begin(&slow);
    g_autoptr(GRand) rand = g_rand_new_with_seed(53895);
    int i;

    for (i = 0; i < 400; i++) {
        int tag = i % 32;
        int target = tag % 2;
        Direction dir = tag / 2 % 2;
        g_autofree char *list = g_strdup_printf("r%d@%d+r%d@%d",
                                                100, tag * 4096, 1436,
                                                tag * 4096 + 2000);

        while (q->active[tag]) {
            queue_continue(q);
        }
        queue_start(q, dir, target, tag, tag * 8 + g_rand_int_range(rand, 0, 4),
                    list);
    }
    queue_drain(q);
    assert_everything(q->c.m);
    expect_counters(&q->c, 400, NULL, NULL);
    queue_end(q);
}

/*
 * An interrupt does not wait for commands that have disconnected, and neither
 * does memory that is not theirs.
 */
static void test_in_flight_is_no_barrier(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&plain);
    Chip *c = &q->c;
    int tag;

    if (!c->before && t->dir == WRITE) {
        g_test_skip("QEMU has one write at a time");
        queue_end(q);
        return;
    }
    suspend_disk(q);
    for (tag = 0; tag < 20; tag++) {
        g_autofree char *list = g_strdup_printf("r512@%d", tag * 4096);

        queue_start(q, t->dir, 0, tag, 3 * tag, list);
    }
    queue_start(q, t->dir, 1, 200, 7, "r512@100000");
    while (q->active[200]) {
        queue_continue(q);
    }
    script_begin(&c->s, c->m->qts, SCRIPT);
    memory_move(&c->s, SCRATCH, c->m->region[RAM].base + 20 * 4096, 512);
    interrupt_on_the_fly(&c->s);
    interrupt(&c->s, ALWAYS, MARK);
    script_end(&c->s);
    chip_run(c, SCRIPT);
    g_assert(chip_readb(c, ISTAT0) & ISTAT0_INTF);
    chip_writeb(c, ISTAT0, ISTAT0_INTF);
    chip_expect_int(c, MARK);
    g_assert_cmpint(q->nactive, ==, 20);
    resume_disk(q);
    queue_drain(q);
    expect_counters(c, 21 + 1, NULL, NULL);
    queue_end(q);
}

/* Messages and resets that end commands in flight */

static void begin_slow_queue(Queue *q, Direction dir, int n)
{
    int tag;

    for (tag = 0; tag < n; tag++) {
        g_autofree char *list = g_strdup_printf("r512@%d+r512@%d", tag * 4096,
                                                tag * 4096 + 1000);

        /*
         * The last one is on the other disk.  No two write the same sector,
         * since they end in any order.
         */
        queue_start(q, dir, tag == n - 1, tag, 2 * tag, list);
    }
}

/* Commands to @target from @from to @to are not going to end any more */
static void queue_forget(Queue *q, int target, int from, int to)
{
    int tag;

    for (tag = from; tag <= to; tag++) {
        if (q->active[tag] && q->cmd[tag].target == target) {
            q->active[tag] = false;
            q->nactive--;
            expect_partial_transfer(q->c.m, &q->cmd[tag].req);
        }
    }
}

/* Send a message about a tag, or about a target */
static void queue_message(Queue *q, int target, int tag, uint8_t message)
{
    Chip *c = &q->c;
    uint8_t msg[] = { MSG_IDENTIFY | IDENTIFY_DISC_PRIV, MSG_SIMPLE_QUEUE_TAG,
                      tag, message };
    uint32_t start;

    qtest_memwrite(c->m->qts, SCRATCH + KiB, msg, sizeof(msg));
    script_begin(&c->s, c->m->qts, SCRIPT);
    start = c->s.here;
    select_atn(&c->s, target, q->idle + 8);
    move(&c->s, MESSAGE_OUT, SCRATCH + KiB, sizeof(msg));
    wait_disconnect(&c->s);
    interrupt(&c->s, ALWAYS, STARTED);
    script_end(&c->s);
    do {
        chip_run(c, start);
    } while (queue_wait(q) != STARTED);
}

static void end_slow_queue(Queue *q)
{
    queue_drain(q);
    assert_everything(q->c.m);
    clear_unit_attention(&q->c);
    if (q->c.before) {
        qobject_unref(q->c.before);
        q->c.before = counters(q->c.m);
    }
    expect_usable(&q->c);
    queue_end(q);
}

/*
 * Which of the commands are in flight when the message arrives is up to the
 * clock: but what has not ended then does not end later.
 */
static void test_abort_tag(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    queue_message(q, 0, 3, MSG_ABORT_TAG);
    queue_forget(q, 0, 3, 3);
    end_slow_queue(q);
}

static void test_abort(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    queue_message(q, 0, 3, MSG_ABORT);
    queue_forget(q, 0, 0, 7);
    end_slow_queue(q);
}

static void test_clear_queue(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    queue_message(q, 0, 3, MSG_CLEAR_QUEUE);
    queue_forget(q, 0, 0, 7);
    end_slow_queue(q);
}

static void test_bus_device_reset(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    queue_message(q, 0, 3, MSG_BUS_DEVICE_RESET);
    queue_forget(q, 0, 0, 7);
    end_slow_queue(q);
}

static void test_bus_reset(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    chip_writeb(&q->c, SCNTL1, SCNTL1_RST);
    chip_writeb(&q->c, SCNTL1, 0);
    g_assert_cmphex(chip_wait(&q->c), ==, SIST0_RST << 8);
    queue_forget(q, 0, 0, 7);
    queue_forget(q, 1, 0, 7);
    end_slow_queue(q);
}

/* The chip is waiting for reselection, or does nothing */
static void test_chip_reset(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    if (t->cause) {
        chip_run(&q->c, q->idle);
    }
    chip_writeb(&q->c, ISTAT0, ISTAT0_SRST);
    chip_writeb(&q->c, ISTAT0, 0);
    if (t->cause) {
        /* Maybe a command was so quick */
        queue_forget(q, 0, 0, 7);
        queue_forget(q, 1, 0, 7);
    }
    queue_forget(q, 0, 0, 7);
    queue_forget(q, 1, 0, 7);
    end_slow_queue(q);
}

static void test_system_reset(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    machine_reset(q->c.m);
    queue_forget(q, 0, 0, 7);
    queue_forget(q, 1, 0, 7);
    end_slow_queue(q);
}

/* The same while the script waits at a barrier */
static void test_chip_reset_at_barrier(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &slow);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, 1);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, 1, c.cmd.req.list->len);
    script_finish(&c);
    chip_writeb(&c, ISTAT0, ISTAT0_SRST);
    chip_writeb(&c, ISTAT0, 0);
    expect_partial_transfer(c.m, &c.cmd.req);
    clear_unit_attention(&c);
    expect_counters(&c, 0, "barrier", "interrupt");
    expect_usable(&c);
    chip_end(&c);
}

/* Abort the script. */
static void chip_stop(Chip *c)
{
    chip_writeb(c, ISTAT0, ISTAT0_ABRT);
    chip_writeb(c, ISTAT0, 0);
}

/* The same to one that has collected the first entry of a list */
static void begin_stop(Chip *c, const Setup *setup, const LsiTest *t)
{
    int64_t deadline = patience_ends();
    uint32_t rest;

    chip_begin(c, setup);
    command_read_write(c, &c->cmd, t->dir, 0, 3, 7, 0, t->list);
    script_start(c);
    emit_moves(c, 0, 1);
    rest = c->s.here;
    jump(&c->s, ALWAYS, rest);
    emit_moves(c, 1, c->cmd.req.list->len);
    script_finish(c);
    while (chip_readl(c, DSP) != rest) {
        wait_before_poll(deadline, "end of the first MOVE");
    }
    g_assert(!chip_has_stopped(c));
    chip_stop(c);
}

/* An abort of the script waits for the data: nothing of it runs after that */
static void test_stop(const void *data)
{
    Chip c;

    begin_stop(&c, &plain, data);
    g_assert_cmphex(chip_wait(&c), ==, DSTAT_ABRT);
    check_first_entry(&c);
    chip_run(&c, chip_readl(&c, DSP) + 8);
    finish_after_mark(&c);
    expect_counters(&c, 0, "barrier", "stop");
    expect_usable(&c);
    chip_end(&c);
}

/* The data that it waits for does not come any more */
static void test_stop_and_bus_reset(const void *data)
{
    Chip c;

    begin_stop(&c, &slowest, data);
    chip_writeb(&c, SCNTL1, SCNTL1_RST);
    chip_writeb(&c, SCNTL1, 0);
    g_assert_cmphex(chip_wait(&c), ==, SIST0_RST << 8 | DSTAT_ABRT);
    expect_partial_transfer(c.m, &c.cmd.req);
    clear_unit_attention(&c);
    expect_counters(&c, 0, "barrier", "stop");
    expect_usable(&c);
    chip_end(&c);
}

/* An aborted script does not go on when its command ends */
static void test_stop_before_end(void)
{
    int64_t deadline = patience_ends();
    uint32_t rest;
    Chip c;

    chip_begin(&c, &slowest);
    command_read_write(&c, &c.cmd, WRITE, 0, 3, 7, 0, "r512+r512");
    script_start(&c);
    emit_moves(&c, 0, 1);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, 1, 2);
    rest = c.s.here;
    script_finish(&c);
    chip_expect_int(&c, MARK);
    chip_continue(&c);
    while (chip_readl(&c, DSP) != rest) {
        wait_before_poll(deadline, "end of the data");
    }
    chip_stop(&c);
    g_assert_cmphex(chip_wait(&c), ==, DSTAT_ABRT);
    wait_for_status_phase(&c);
    g_assert_cmphex(chip_readl(&c, DSPS), !=, DONE);
    chip_continue(&c);
    expect_good(&c);
    expect_counters(&c, 0, "barrier", "interrupt");
    expect_usable(&c);
    chip_end(&c);
}

static bool script_is_running(Chip *c)
{
    return chip_readb(c, ISTAT1) & ISTAT1_SRUN;
}

/* Run a script that waits without any command. */
static void run_and_wait(Chip *c)
{
    script_end(&c->s);
    chip_run(c, SCRIPT);
    g_assert_true(script_is_running(c));
}

/* The same, and abort it. */
static void run_and_stop(Chip *c)
{
    run_and_wait(c);
    chip_stop(c);
    g_assert_cmphex(chip_wait(c), ==, DSTAT_ABRT);
}

/* Nor does it when the pause is over that comes after many instructions */
static void test_stop_in_pause(void)
{
    Chip c;

    chip_begin(&c, &plain);
    script_begin(&c.s, c.m->qts, SCRIPT);
    jump(&c.s, ALWAYS, SCRIPT);
    run_and_stop(&c);
    qtest_clock_step(c.m->qts, NANOSECONDS_PER_SECOND);
    g_assert_false(script_is_running(&c));
    expect_usable(&c);
    chip_end(&c);
}

/* Nor in WAIT RESELECT, which a signal ends */
static void test_stop_before_signal(void)
{
    Chip c;

    chip_begin(&c, &plain);
    script_begin(&c.s, c.m->qts, SCRIPT);
    wait_reselect(&c.s, SCRIPT);
    run_and_stop(&c);
    chip_writeb(&c, ISTAT0, ISTAT0_SIGP);
    g_assert_false(script_is_running(&c));
    chip_writeb(&c, ISTAT0, 0);
    expect_usable(&c);
    chip_end(&c);
}

/* Nor does one that another interrupt has halted in that pause */
static void test_interrupt_in_pause(void)
{
    Chip c;

    chip_begin(&c, &plain);
    script_begin(&c.s, c.m->qts, SCRIPT);
    jump(&c.s, ALWAYS, SCRIPT);
    run_and_wait(&c);
    chip_writeb(&c, SCNTL1, SCNTL1_RST);
    chip_writeb(&c, SCNTL1, 0);
    g_assert_cmphex(chip_wait(&c), ==, SIST0_RST << 8);
    qtest_clock_step(c.m->qts, NANOSECONDS_PER_SECOND);
    g_assert_false(script_is_running(&c));
    clear_unit_attention(&c);
    expect_usable(&c);
    chip_end(&c);
}

static int64_t operations_done(Machine *m)
{
    QDict *answer = qtest_qmp(m->qts, "{ 'execute': 'query-blockstats' }");
    const QListEntry *e;
    int64_t n = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(answer, "return"), e) {
        QDict *dev = qobject_to(QDict, qlist_entry_obj(e));
        QDict *stats = qdict_get_qdict(dev, "stats");

        n += qdict_get_int(stats, "rd_operations") +
             qdict_get_int(stats, "wr_operations");
    }
    qobject_unref(answer);
    return n;
}

/* A command that has disconnected, and a script that waits to be reselected */
static void begin_wait_reselect(Queue *q, Direction dir)
{
    suspend_disk(q);
    queue_start(q, dir, 0, 5, 7, "r512");
    chip_run(&q->c, q->idle);
    g_assert_true(script_is_running(&q->c));
}

static void end_wait_reselect(Queue *q)
{
    assert_everything(q->c.m);
    expect_counters(&q->c, 2, NULL, NULL);
    expect_usable(&q->c);
    queue_end(q);
}

static bool skip_early_write(Queue *q, Direction dir)
{
    bool skip = !q->c.before && dir == WRITE;

    if (skip) {
        g_test_skip("QEMU takes the data before it writes");
        queue_end(q);
    }
    return skip;
}

/* Nor when a target would reselect the chip; it does so as soon as it may */
static void test_stop_before_reselection(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&plain);
    Chip *c = &q->c;
    int64_t deadline, before;
    uint32_t dsp;

    if (skip_early_write(q, t->dir)) {
        return;
    }
    begin_wait_reselect(q, t->dir);
    before = operations_done(c->m);
    chip_stop(c);
    g_assert_cmphex(chip_wait(c), ==, DSTAT_ABRT);
    dsp = chip_readl(c, DSP);
    resume_disk(q);
    deadline = patience_ends();
    while (operations_done(c->m) == before) {
        wait_before_poll(deadline, "end of the request");
    }
    g_assert_false(chip_has_stopped(c));
    g_assert_cmphex(chip_readl(c, DSP), ==, dsp);
    queue_drain(q);
    end_wait_reselect(q);
}

/* Nor one that is halted since the reselection interrupts */
static void test_interrupt_at_reselection(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&plain);
    Chip *c = &q->c;

    if (skip_early_write(q, t->dir)) {
        return;
    }
    begin_wait_reselect(q, t->dir);
    chip_writeb(c, SIEN0, SIST0_RSL);
    chip_writeb(c, SCID, SCID_RRE);
    resume_disk(q);
    g_assert_cmphex(chip_wait(c), ==, SIST0_RSL << 8);
    g_assert_false(script_is_running(c));
    chip_writeb(c, SIEN0, 0);
    chip_writeb(c, SCID, 0);
    chip_continue(c);
    queue_wait(q);
    end_wait_reselect(q);
}

/* WAIT DISCONNECT in a data phase, and then another command */
static void test_leave_target(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    script_start(&c);
    wait_disconnect(&c.s);
    interrupt(&c.s, ALWAYS, MARK);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    request_free(&c.cmd.req);
    expect_usable(&c);
    chip_end(&c);
}

/* A target whose disconnect message nobody takes */
static void test_leave_disconnecting_target(const void *data)
{
    const LsiTest *t = data;
    uint32_t again;
    Chip c;

    chip_begin(&c, &slow);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    wait_disconnect(&c.s);
    wait_reselect(&c.s, 0);
    emit_reselected(&c.s, &c.cmd);
    again = c.s.here;
    jump(&c.s, WHEN_PHASE(STATUS), c.dispatch);
    jump(&c.s, ALWAYS, again);
    script_finish(&c);
    if (c.before) {
        expect_good(&c);
        expect_counters(&c, 1, NULL, NULL);
    } else {
        /* It has not disconnected, and STATUS was there: garbage is read */
        machine_reset(c.m);
        expect_partial_transfer(c.m, &c.cmd.req);
    }
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/*
 * The target has its disconnect message on the bus, and the script does what
 * @cause says instead of taking it.  A driver may look at the bus then.
 */
static void test_ignore_disconnect(const void *data)
{
    const LsiTest *t = data;
    bool stays = !strcmp(t->cause, "select");
    int64_t deadline = patience_ends();
    uint32_t spin;
    Chip c;

    chip_begin(&c, &slow);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    if (stays) {
        /* It is connected, and jumps; an interrupt would be a barrier */
        spin = c.s.here + 8;
        select_atn(&c.s, 0, spin);
        jump(&c.s, ALWAYS, spin);
        script_finish(&c);
        while (chip_readl(&c, DSP) != spin) {
            wait_before_poll(deadline, "SELECT");
        }
        g_assert_cmphex(chip_readb(&c, SBDL), ==, MSG_SAVE_DATA_POINTER);
        chip_stop(&c);
        g_assert_cmphex(chip_wait(&c), ==, DSTAT_ABRT);
        chip_run(&c, c.dispatch);
    } else {
        wait_disconnect(&c.s);
        interrupt(&c.s, ALWAYS, MARK);
        wait_reselect(&c.s, 0);
        emit_reselected(&c.s, &c.cmd);
        script_finish(&c);
        chip_expect_int(&c, MARK);
        g_assert_cmphex(chip_readb(&c, SBDL), ==, 0);
        chip_continue(&c);
    }
    expect_good(&c);
    expect_counters(&c, 1, NULL, stays ? "stop" : NULL);
    expect_usable(&c);
    chip_end(&c);
}

/*
 * Data that arrives while the machine is reset is written to the chip's own
 * registers, and would begin a script.
 */
static void test_reset_by_data(const void *data)
{
    uint32_t script, at = 0;
    Command second;
    Script s;
    Chip c;

    chip_begin(&c, &slow);
    /* Some bytes of the disk are an address of RAM that nobody uses */
    do {
        at++;
        g_assert_cmpuint(at, <, c.m->disk_size - SECTOR);
        script = ldl_le_p(c.m->image[0] + at);
    } while (script % 4 || script < 8 * MiB || script > 30 * MiB ||
             at % SECTOR > SECTOR - 4);
    command_read_write(&c, &c.cmd, READ, 0, 3, at / SECTOR, 0, "r512");
    command_read_write(&c, &second, READ, 0, 4, at / SECTOR, 0, "r512");
    command_prepare(&c, &second, 1);
    at %= SECTOR;
    script_begin(&s, c.m->qts, script);
    emit_select(&s, &second, 0);
    interrupt(&s, ALWAYS, MARK);
    script_end(&s);

    script_start(&c);
    move(&c.s, DATA_IN, SCRATCH, at);
    move(&c.s, DATA_IN, c.m->hba_bar.addr + DSP, 4);
    move(&c.s, DATA_IN, SCRATCH + at, SECTOR - at - 4);
    script_finish(&c);
    machine_reset(c.m);
    request_free(&second.req);
    clear_unit_attention(&c);
    expect_counters(&c, 1, NULL, NULL);
    expect_usable(&c);
    chip_end(&c);
}

static void emit_chip_reset(Script *s)
{
    move_to_register(s, ISTAT0, ISTAT0_SRST);
}

static void emit_bus_reset(Script *s)
{
    move_to_register(s, SCNTL1, SCNTL1_RST);
}

typedef struct ResetTest {
    const char *name;
    void (*emit)(Script *s);
    bool bus;
} ResetTest;

/* A script goes on because a request ends, and cannot wait for that */
static void test_reset_by_script(const void *data)
{
    const ResetTest *t = data;
    int64_t deadline = patience_ends();
    Chip c;

    chip_begin(&c, &slow);
    chip_writel(&c, SCRATCHA, MARK);
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r512");
    c.cmd.identify = MSG_IDENTIFY;
    script_start(&c);
    emit_moves(&c, 0, 1);
    t->emit(&c.s);
    script_finish(&c);
    if (t->bus) {
        g_assert_cmphex(chip_wait(&c), ==, SIST0_RST << 8);
        chip_writeb(&c, SCNTL1, 0);
    } else {
        while (chip_readl(&c, SCRATCHA) == MARK) {
            wait_before_poll(deadline, "reset");
        }
    }
    expect_transfer(c.m, &c.cmd.req, c.cmd.req.bytes);
    request_free(&c.cmd.req);
    clear_unit_attention(&c);
    expect_counters(&c, 0, "no-disconnect", NULL);
    expect_usable(&c);
    chip_end(&c);
}

/*
 * The message of a reselection goes to registers, and its last byte, which is
 * the tag, resets the chip.
 */
static void test_reset_by_message(void)
{
    int64_t deadline = patience_ends();
    uint32_t message;
    Chip c;

    chip_begin(&c, &off);
    chip_writel(&c, SCRATCHA, MARK);
    command_read_write(&c, &c.cmd, READ, 0, ISTAT0_SRST, 7, 0, "r512");
    command_prepare(&c, &c.cmd, 0);
    message = c.cmd.structure + MSG_IN_OFFSET;
    script_begin(&c.s, c.m->qts, c.script);
    c.start = c.s.here;
    emit_select(&c.s, &c.cmd, 0);
    jump(&c.s, WHEN_PHASE(MESSAGE_IN), c.s.here + 8);
    move(&c.s, MESSAGE_IN, message, 1);
    clear_ack(&c.s);
    move(&c.s, MESSAGE_IN, message, 1);
    clear_ack(&c.s);
    wait_disconnect(&c.s);
    interrupt(&c.s, ALWAYS, MARK);
    wait_reselect(&c.s, 0);
    move(&c.s, MESSAGE_IN, c.m->hba_bar.addr + ISTAT0 - 2, 3);
    interrupt(&c.s, ALWAYS, UNEXPECTED);
    script_end(&c.s);
    chip_run(&c, c.start);
    chip_expect_int(&c, MARK);
    /* The disk is done then. */
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'stop' }");
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'cont' }");
    chip_continue(&c);
    while (chip_readl(&c, SCRATCHA) == MARK) {
        wait_before_poll(deadline, "reset");
    }
    request_free(&c.cmd.req);
    clear_unit_attention(&c);
    run_command(&c, READ, 0, 300, "r512");
    chip_end(&c);
}

/*
 * A request ends, and the script that goes on then resets another controller
 * that has the same disk, which would wait for all requests.
 */
static void test_config_when_request_ends(void)
{
    g_autofree QPCIDevice *nvme = NULL;
    uint32_t devctl, cc;
    QPCIBar regs;
    Chip c;

    chip_begin(&c, &shared);
    nvme = qpci_device_find(c.m->pci, QPCI_DEVFN(NVME_SLOT, 0));
    qpci_device_enable(nvme);
    regs = qpci_iomap(nvme, 0, NULL);
    /* Only now it has the disk. */
    nvme_enable(nvme, regs, SCRATCH, SCRATCH + 4 * KiB, 2);
    cc = qpci_io_readl(nvme, regs, NVME_REG_CC);
    devctl = qpci_find_capability(nvme, PCI_CAP_ID_EXP, 0) + PCI_EXP_DEVCTL;
    chip_writel(&c, SCRATCHA,
                PCI_CONFIG_ENABLE | nvme->devfn << 8 | (devctl & ~3u));
    chip_writel(&c, SCRATCHB, PCI_EXP_DEVCTL_BCR_FLR);
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r512");
    c.cmd.identify = MSG_IDENTIFY;
    script_start(&c);
    emit_moves(&c, 0, 1);
    move_to_register(&c.s, DMODE, DMODE_DIOM);
    memory_move(&c.s, PCI_CONFIG_ADDRESS, c.m->hba_bar.addr + SCRATCHA, 4);
    memory_move(&c.s, PCI_CONFIG_DATA + devctl % 4,
                c.m->hba_bar.addr + SCRATCHB, 2);
    move_to_register(&c.s, DMODE, 0);
    script_finish(&c);
    expect_good(&c);
    /* The reset would have cleared it. */
    g_assert_cmphex(qpci_io_readl(nvme, regs, NVME_REG_CC), ==, cc);
    chip_end(&c);
    machine_discard();
}

/*
 * The script goes on because a request ends, and begins the next command, which
 * waits for the disk.
 */
static void test_command_when_request_ends(void)
{
    Command next;
    Chip c;

    chip_begin(&c, &slow);
    command_init(&next, 1, UNTAGGED);
    next.cdb[0] = ALLOW_MEDIUM_REMOVAL;
    command_prepare(&c, &next, 1);
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r512");
    c.cmd.identify = MSG_IDENTIFY;
    script_start(&c);
    emit_moves(&c, 0, 1);
    emit_status(&c.s, &c.cmd);
    emit_select(&c.s, &next, 0);
    emit_status(&c.s, &next);
    interrupt(&c.s, ALWAYS, DONE);
    script_finish(&c);
    expect_good(&c);
    g_assert_cmphex(command_status(&c, &next), ==, GOOD);
    expect_counters(&c, 0, "no-disconnect", NULL);
    expect_usable(&c);
    chip_end(&c);
}

/* Begin a READ, in the middle of which the target disconnects. */
static void begin_read(Chip *c, Command *cmd)
{
    Script *s = &c->s;
    uint32_t when_msg_in, if_disconnect, dispatch;

    command_prepare(c, cmd, 1);
    script_begin(s, c->m->qts, c->script);
    c->start = s->here;
    emit_select(s, cmd, 0);
    dispatch = s->here;
    when_msg_in = jump(s, WHEN_PHASE(MESSAGE_IN), 0);
    move(s, DATA_IN, entry_address(c->m, list_entry(cmd, 0)),
         list_entry(cmd, 0)->len);
    jump(s, ALWAYS, dispatch);
    land(s, when_msg_in);
    move(s, MESSAGE_IN, cmd->structure + MSG_IN_OFFSET, 1);
    if_disconnect = jump(s, IF_DATA(MSG_DISCONNECT), 0);
    clear_ack(s);
    jump(s, ALWAYS, dispatch);
    land(s, if_disconnect);
    clear_ack(s);
    wait_disconnect(s);
    interrupt(s, ALWAYS, MARK);
    script_end(s);
    chip_run(c, c->start);
    chip_expect_int(c, MARK);
}

/* It aborts a command of another disk, and that is in flight. */
static void test_abort_when_request_ends(void)
{
    const uint8_t abort_message[] = { MSG_IDENTIFY, MSG_ABORT };
    Command other;
    Chip c;

    chip_begin(&c, &slow_second);
    command_read_write(&c, &other, READ, 1, 4, 9, 0, "r512@8192");
    begin_read(&c, &other);
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r512");
    c.cmd.identify = MSG_IDENTIFY;
    qtest_memwrite(c.m->qts, SCRATCH, abort_message, sizeof(abort_message));
    script_start(&c);
    emit_moves(&c, 0, 1);
    emit_status(&c.s, &c.cmd);
    select_atn(&c.s, 1, 0);
    move(&c.s, MESSAGE_OUT, SCRATCH, sizeof(abort_message));
    wait_disconnect(&c.s);
    interrupt(&c.s, ALWAYS, DONE);
    script_finish(&c);
    expect_done(&c, GOOD);
    expect_transfer(c.m, &c.cmd.req, c.cmd.req.bytes);
    request_free(&c.cmd.req);
    expect_partial_transfer(c.m, &other.req);
    request_free(&other.req);
    chip_recount(&c);
    expect_usable(&c);
    chip_end(&c);
}

/*
 * A script unplugs its own chip: it writes to the I/O port with which firmware
 * ejects what is in a slot (docs/specs/acpi_pci_hotplug.rst).
 */

#define EJECT_PORT              0xae08

static void emit_eject(Chip *c)
{
    move_to_register(&c->s, DMODE, DMODE_DIOM);
    memory_move(&c->s, EJECT_PORT, c->m->hba_bar.addr + SCRATCHA, 4);
}

static void expect_ejected(Chip *c)
{
    qtest_qmp_eventwait(c->m->qts, "DEVICE_DELETED");
    qtest_qmp_assert_success(c->m->qts, "{ 'execute': 'query-status' }");
    expect_transfer(c->m, &c->cmd.req, c->cmd.req.bytes);
    request_free(&c->cmd.req);
    qobject_unref(c->before);
    machine_discard();
}

/* It goes on because a request ends, and the chip cannot wait for that. */
static void test_eject_when_request_ends(void)
{
    Chip c;

    chip_begin(&c, &slow);
    chip_writel(&c, SCRATCHA, 1 << HBA_SLOT);
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r512");
    c.cmd.identify = MSG_IDENTIFY;
    script_start(&c);
    emit_moves(&c, 0, 1);
    emit_eject(&c);
    script_finish(&c);
    expect_ejected(&c);
}

static void read_null(Chip *c, uint16_t blocks)
{
    command_init(&c->cmd, 2, 3);
    c->cmd.cdb[0] = READ_10;
    stw_be_p(&c->cmd.cdb[7], blocks);
    c->cmd.req.dir = READ;
    script_start(c);
}

/* A READ of two parts, of which the first waits for the throttle */
static void begin_parts(Chip *c)
{
    const uint32_t part = 64 * KiB;

    chip_begin(c, &null);
    clear_attention_of(c, 2);
    /* One request is what the drive may do in this second. */
    throttle(c->m, 2, 0, 1);
    read_null(c, 1);
    move(&c->s, DATA_IN, SCRATCH, SECTOR);
    script_finish(c);
    expect_done(c, GOOD);

    read_null(c, 512);
    move(&c->s, DATA_IN, c->m->region[RAM].base, part);
    move(&c->s, DATA_IN, c->m->region[RAM].base + part, part);
    interrupt(&c->s, ALWAYS, MARK);
    script_finish(c);
    g_assert(!chip_has_stopped(c));
}

/*
 * The drain of the disk that is reset lets the first part of a command's data
 * come, before the command is canceled: that must not ask for the second part,
 * which would wait for the end of the drain.
 */
static void test_reset_between_parts(void)
{
    Chip c;

    begin_parts(&c);
    chip_writeb(&c, ISTAT0, ISTAT0_SRST);
    chip_writeb(&c, ISTAT0, 0);
    throttle(c.m, 2, 0, 0);
    assert_everything(c.m);
    chip_recount(&c);
    expect_usable(&c);
    chip_end(&c);
}

/* The same drain, without a reset: the second part has to be waited for. */
static void test_unplug_between_parts(void)
{
    Chip c;

    begin_parts(&c);
    qtest_qmp_device_del(c.m->qts, "disk2");
    /* The data comes before the disk goes, and is zero. */
    memset(c.m->region[RAM].want, 0, 128 * KiB);
    chip_writeb(&c, ISTAT0, ISTAT0_SRST);
    chip_writeb(&c, ISTAT0, 0);
    chip_recount(&c);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/* It goes on because the guest says so. */
static void test_eject_at_once(void)
{
    Chip c;

    chip_begin(&c, &plain);
    chip_writel(&c, SCRATCHA, 1 << HBA_SLOT);
    command_read_write(&c, &c.cmd, READ, 0, 3, 7, 0, "r512");
    script_start(&c);
    emit_moves(&c, 0, 1);
    interrupt(&c.s, ALWAYS, MARK);
    emit_eject(&c);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    chip_continue(&c);
    expect_ejected(&c);
}

/*
 * What a CPU ejects is gone when it executes its next instruction, which may
 * be firmware's look at what is left: no other test has a CPU that runs.
 */
static void test_eject_by_cpu(void)
{
    enum { vendor_id = 0x500 };
    static const uint8_t code[] = {
        0x66, 0xb8, 1 << HBA_SLOT, 0, 0, 0,     /* mov eax, the slot */
        0xba, EJECT_PORT & 0xff, EJECT_PORT >> 8,
        0x66, 0xef,                             /* out dx, eax */
        0x66, 0xb8, 0, HBA_SLOT << 3, 0, 0x80,  /* its vendor and device ID */
        0xba, 0xf8, 0x0c,                       /* CONFIG_ADDRESS */
        0x66, 0xef,
        0xba, 0xfc, 0x0c,                       /* CONFIG_DATA */
        0x66, 0xed,                             /* in eax, dx */
        0x66, 0xa3, vendor_id & 0xff, vendor_id >> 8,
        0xf4,                                   /* hlt */
    };
    /* Where the first instruction is: jmp to 0xff00 */
    static const uint8_t start[] = { 0xe9, 0x0d, 0xff };
    g_autofree uint8_t *rom = g_malloc0(64 * KiB);
    int64_t deadline = patience_ends();
    QTestState *qts;
    int bios_fd;

    memcpy(rom + 0xff00, code, sizeof(code));
    memcpy(rom + 0xfff0, start, sizeof(start));
    bios_fd = anonymous_file(rom, 64 * KiB);
    qts = qtest_initf("-accel tcg -nodefaults -m 32 -bios /proc/%d/fd/%d "
                      "-device lsi53c895a,addr=%d", getpid(), bios_fd,
                      HBA_SLOT);
    close(bios_fd);
    while (!qtest_readl(qts, vendor_id)) {
        wait_before_poll(deadline, "CPU");
    }
    g_assert_cmphex(qtest_readl(qts, vendor_id), ==, UINT32_MAX);
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
    qtest_quit(qts);
}

/*
 * The command of one disk ends while the other disk is reset, and the script
 * would go on with a command for that one.
 */
static void test_reset_by_status(const void *data)
{
    const LsiTest *t = data;
    /* The disk that is reset first, and has a command that takes longer */
    const int first = 1;
    uint32_t again, when_status;
    Command flush, next;
    Script *s;
    Chip c;

    chip_begin(&c, &slow_both);
    s = &c.s;
    /* A disk that nobody has written to has nothing to flush */
    run_command(&c, WRITE, !first, 100, "r512");
    command_read_write(&c, &c.cmd, t->dir, first, 3, SPECIAL_SECTOR, 0,
                       t->list);
    command_read_write(&c, &next, READ, first, 4, SPECIAL_SECTOR + 1, 0,
                       "r512@4096");
    command_init(&flush, !first, UNTAGGED);
    flush.cdb[0] = SYNCHRONIZE_CACHE_10;
    command_prepare(&c, &c.cmd, 0);
    command_prepare(&c, &next, 1);
    command_prepare(&c, &flush, 2);

    script_begin(s, c.m->qts, c.script);
    emit_select(s, &c.cmd, 0);
    emit_moves(&c, 0, c.cmd.req.list->len);
    move(s, MESSAGE_IN, c.cmd.structure + MSG_IN_OFFSET, 2);
    clear_ack(s);
    wait_disconnect(s);
    emit_select(s, &flush, 0);
    again = s->here;
    when_status = jump(s, WHEN_PHASE(STATUS), 0);
    jump(s, ALWAYS, again);
    land(s, when_status);
    emit_status(s, &flush);
    emit_select(s, &next, 0);
    interrupt(s, ALWAYS, MARK);
    script_end(s);
    chip_run(&c, c.script);
    machine_reset(c.m);
    expect_partial_transfer(c.m, &c.cmd.req);
    request_free(&next.req);
    clear_unit_attention(&c);
    expect_counters(&c, 2, NULL, NULL);
    expect_usable(&c);
    chip_end(&c);
}

/* A MOVE of nothing is not an end of anything */
static void test_empty_move(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    script_start(&c);
    move(&c.s, data_phase(&c.cmd), SCRATCH, 0);
    emit_moves(&c, 0, 1);
    move(&c.s, data_phase(&c.cmd), SCRATCH, 0);
    emit_moves(&c, 1, c.cmd.req.list->len);
    script_finish(&c);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);
    chip_end(&c);
}

/* A script that copies for ever leaves time for others, as one that spins */
static void test_endless_memory_move(void)
{
    int64_t begun = g_get_monotonic_time();
    uint64_t hole;
    uint32_t loop;
    Chip c;

    chip_begin(&c, &plain);
    hole = c.m->region[HOLE].base;
    script_begin(&c.s, c.m->qts, SCRIPT);
    loop = c.s.here;
    memory_move(&c.s, hole, hole, MEMORY_MOVE_MAX);
    jump(&c.s, ALWAYS, loop);
    script_end(&c.s);
    chip_run(&c, loop);
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'query-status' }");
    g_assert_cmpint(g_get_monotonic_time() - begun, <,
                    PATIENCE_SECONDS * G_USEC_PER_SEC);
    g_assert_false(chip_has_stopped(&c));
    chip_writeb(&c, ISTAT0, ISTAT0_SRST);
    chip_writeb(&c, ISTAT0, 0);
    expect_usable(&c);
    chip_end(&c);
}

/*
 * A disk is unplugged while it works.  It is not deleted before the chip has
 * told what it had done by then.
 */
static void test_unplug(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    qtest_qmp_device_del_send(q->c.m->qts, "disk0");
    /* The chip reports the oldest first */
    queue_start(q, t->dir, 1, 8, 300, "r512@32768");
    while (q->active[8]) {
        queue_continue(q);
    }
    queue_forget(q, 0, 0, 7);
    queue_drain(q);
    qtest_qmp_eventwait(q->c.m->qts, "DEVICE_DELETED");
    assert_everything(q->c.m);
    run_command(&q->c, READ, 1, 300, "r512");
    queue_end(q);
    machine_discard();
}

/* A disk is unplugged that has done a command, but not yet told so */
static void test_unplug_complete(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&plain);
    QTestState *qts = q->c.m->qts;

    queue_start(q, t->dir, 0, 0, 7, t->list);
    blkdebug(q->c.m, 0, "aio_flush");
    qtest_qmp_device_del_send(qts, "disk0");
    chip_writeb(&q->c, ISTAT0, ISTAT0_SRST);
    chip_writeb(&q->c, ISTAT0, 0);
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
    queue_forget(q, 0, 0, 0);
    queue_end(q);
    machine_discard();
}

/* A disk is unplugged while the script waits for it */
static void test_unplug_at_barrier(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &slow);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_data_and_status(&c);
    script_finish(&c);
    qtest_qmp_device_del(c.m->qts, "disk0");
    expect_partial_transfer(c.m, &c.cmd.req);
    /* The chip waits for a target that is gone */
    chip_writeb(&c, ISTAT0, ISTAT0_SRST);
    chip_writeb(&c, ISTAT0, 0);
    test_unit_ready(&c, 1);
    request_free(&c.cmd.req);
    run_command(&c, READ, 1, 300, "r512");
    chip_end(&c);
    machine_discard();
}

/* Migration, whatever the chip is doing */

static void chip_migrate(Chip *c)
{
    machine_migrate(c->m);
    chip_recount(c);
}

/* The script has stopped between two MOVEs: the rest is in the buffer */
static void test_migrate_at_interrupt(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    begin_barrier(&c, t);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, 1, c.cmd.req.list->len);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    chip_migrate(&c);
    check_first_entry(&c);
    chip_continue(&c);
    finish_after_mark(&c);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/* Nothing has been collected yet: that begins on the other side */
static void test_migrate_before_data(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &plain);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    script_start(&c);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, 0, c.cmd.req.list->len);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    chip_migrate(&c);
    chip_continue(&c);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/*
 * Time stands still: the script is in its pause after 500 instructions, and has
 * collected a part of the list.
 */
static void begin_collecting(Chip *c, Direction dir, const char *list)
{
    int i;

    chip_begin(c, &plain);
    command_read_write(c, &c->cmd, dir, 0, 3, 7, 0, list);
    script_start(c);
    emit_moves(c, 0, 1);
    for (i = 0; i < 600; i++) {
        jump(&c->s, ALWAYS, c->s.here + 8);
    }
    emit_moves(c, 1, c->cmd.req.list->len);
    script_finish(c);
    g_assert(!chip_has_stopped(c));
}

static void test_migrate_collecting(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    begin_collecting(&c, t->dir, t->list);
    chip_migrate(&c);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/*
 * Commands in flight, and commands whose status nobody has asked for: nobody
 * waits for reselection.
 */
static void test_migrate_queue(const void *data)
{
    const LsiTest *t = data;
    Queue *q = queue_begin(&slow);

    begin_slow_queue(q, t->dir, 8);
    chip_migrate(&q->c);
    chip_writel(&q->c, TEMP, BLOCKS);
    queue_drain(q);
    assert_everything(q->c.m);
    expect_usable(&q->c);
    queue_end(q);
    machine_discard();
}

/* WRITE SAME of a sector: data that the disk has to have as a whole */
static void begin_write_same(Chip *c, uint32_t lba)
{
    command_init(&c->cmd, 0, 3);
    c->cmd.cdb[0] = WRITE_SAME_10;
    stl_be_p(&c->cmd.cdb[2], lba);
    c->cmd.cdb[8] = 1;
    c->cmd.req.dir = WRITE;
    qtest_memset(c->m->qts, SCRATCH, 0x5a, SECTOR);
    script_start(c);
}

/* The disk does not migrate it, but ends the command on the other side. */
static void expect_aborted(Chip *c)
{
    expect_done(c, CHECK_CONDITION);
    qtest_memset(c->m->qts, SCRATCH, 0, SECTOR);
    assert_everything(c->m);
    expect_usable(c);
    chip_end(c);
    machine_discard();
}

static void test_migrate_parameters(void)
{
    Chip c;

    chip_begin(&c, &plain);
    begin_write_same(&c, 7);
    move(&c.s, DATA_OUT, SCRATCH, SECTOR / 3);
    interrupt(&c.s, ALWAYS, MARK);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    chip_migrate(&c);
    wait_for_status_phase(&c);
    chip_continue(&c);
    expect_aborted(&c);
}

static void test_migrate_parameters_disk_full(void)
{
    Chip c;

    chip_begin(&c, &full);
    begin_write_same(&c, SPECIAL_SECTOR);
    move(&c.s, DATA_OUT, SCRATCH, SECTOR);
    script_finish(&c);
    qtest_qmp_eventwait(c.m->qts, "STOP");
    chip_migrate(&c);
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'cont' }");
    expect_aborted(&c);
}

/* The disk is full: the request goes on on the other side */
static void test_migrate_disk_full(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &full);
    command_read_write(&c, &c.cmd, WRITE, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, c.cmd.req.list->len);
    script_finish(&c);
    qtest_qmp_eventwait(c.m->qts, "STOP");
    chip_migrate(&c);
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'cont' }");
    /* The disk is full there, too, once */
    qtest_qmp_eventwait(c.m->qts, "STOP");
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'cont' }");
    expect_good(&c);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/* The same for a script that waits for its status */
static void test_migrate_disk_full_at_barrier(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &full);
    command_read_write(&c, &c.cmd, WRITE, 0, 3, SPECIAL_SECTOR, 0, t->list);
    script_start(&c);
    emit_data_and_status(&c);
    script_finish(&c);
    qtest_qmp_eventwait(c.m->qts, "STOP");
    chip_migrate(&c);
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'cont' }");
    qtest_qmp_eventwait(c.m->qts, "STOP");
    qtest_qmp_assert_success(c.m->qts, "{ 'execute': 'cont' }");
    expect_good(&c);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

/* Without direct data phases: data waits in the device's buffer */
static void test_migrate_off(const void *data)
{
    const LsiTest *t = data;
    Chip c;

    chip_begin(&c, &off);
    command_read_write(&c, &c.cmd, t->dir, 0, 3, 7, 0, t->list);
    script_start(&c);
    emit_moves(&c, 0, 1);
    interrupt(&c.s, ALWAYS, MARK);
    emit_moves(&c, 1, c.cmd.req.list->len);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    chip_migrate(&c);
    chip_continue(&c);
    expect_good(&c);
    chip_end(&c);
    machine_discard();
}

/*
 * Data that the disk, or the target, makes up and does not migrate: the script
 * stops before a part of it, and after that.
 */
static void test_migrate_answer(const void *data)
{
    const int lun = GPOINTER_TO_INT(data);
    const int len = 16, part = 5;
    uint8_t want[16], got[16];
    int migrations;
    Chip c;

    for (migrations = 0; migrations <= 2; migrations += 2) {
        chip_begin(&c, &plain);
        command_init(&c.cmd, 0, 3);
        c.cmd.identify |= lun;
        c.cmd.cdb[0] = INQUIRY;
        c.cmd.cdb[4] = len;
        c.cmd.req.dir = READ;
        script_start(&c);
        interrupt(&c.s, ALWAYS, MARK);
        move(&c.s, DATA_IN, SCRATCH, part);
        interrupt(&c.s, ALWAYS, MARK);
        move(&c.s, DATA_IN, SCRATCH + part, len - part);
        script_finish(&c);
        chip_expect_int(&c, MARK);
        if (migrations) {
            chip_migrate(&c);
        }
        chip_continue(&c);
        chip_expect_int(&c, MARK);
        if (migrations) {
            chip_migrate(&c);
            chip_migrate(&c);
        }
        chip_continue(&c);
        expect_done(&c, GOOD);
        qtest_memread(c.m->qts, SCRATCH, migrations ? got : want, len);
        qtest_memset(c.m->qts, SCRATCH, 0, len);
        run_command(&c, READ, 0, 100, "r512");
        chip_end(&c);
    }
    g_assert(!memcmp(got, want, len));
    machine_discard();
}

/* Streams that are not true: a field of a command, and what it becomes */

typedef struct Forgery {
    const char *name;
    int field;
    uint32_t value;
} Forgery;

#define ANSWER                  16
#define ANSWER_PART             5

enum AnswerField {
    DATA_LENGTH,
    DATA_OFFSET,
};

static void forge_answer(char *stream, gsize len, const void *opaque)
{
    const Forgery *forgery = opaque;
    uint8_t fields[14] = { 1 /* connected */ };
    char *p;

    stl_be_p(&fields[6], ANSWER - ANSWER_PART);
    stl_be_p(&fields[10], ANSWER_PART);
    p = find_in_stream(stream, len, fields, sizeof(fields));
    stl_be_p(p + 6 + forgery->field * 4, forgery->value);
}

static void test_forged_answer(const void *data)
{
    Chip c;

    chip_begin(&c, &plain);
    command_init(&c.cmd, 0, 3);
    c.cmd.cdb[0] = INQUIRY;
    c.cmd.cdb[4] = ANSWER;
    c.cmd.req.dir = READ;
    script_start(&c);
    move(&c.s, DATA_IN, SCRATCH, ANSWER_PART);
    interrupt(&c.s, ALWAYS, MARK);
    move(&c.s, DATA_IN, SCRATCH, ANSWER - ANSWER_PART);
    script_finish(&c);
    chip_expect_int(&c, MARK);
    machine_migrate_forged(c.m, forge_answer, data);
    chip_continue(&c);
    expect_done(&c, GOOD);
    run_command(&c, READ, 0, 100, "r512");
    chip_end(&c);
    machine_discard();
}

enum ListField {
    LIST_ENTRIES,
    ENTRY_LENGTH = 3,           /* behind the address of 64 bits */
};

typedef struct ForgedList {
    const Forgery *forgery;
    uint64_t addr;              /* of the first entry */
} ForgedList;

static void forge_list(char *stream, gsize len, const void *opaque)
{
    const ForgedList *l = opaque;
    uint8_t fields[16];

    stl_be_p(&fields[LIST_ENTRIES * 4], 1);
    stq_be_p(&fields[4], l->addr);
    stl_be_p(&fields[ENTRY_LENGTH * 4], SECTOR);
    stl_be_p(find_in_stream(stream, len, fields, sizeof(fields)) +
             l->forgery->field * 4, l->forgery->value);
}

static void test_forged_list(const void *data)
{
    ForgedList l = { data };
    Chip c;

    begin_collecting(&c, READ, "r512+r512");
    l.addr = entry_address(c.m, list_entry(&c.cmd, 0));
    machine_migrate_forged(c.m, forge_list, &l);
    expect_good(&c);
    expect_counters(&c, 1, NULL, NULL);
    expect_usable(&c);
    chip_end(&c);
    machine_discard();
}

static const Forgery forged_answers[] = {
    { "length-too-large", DATA_LENGTH, ANSWER - ANSWER_PART + 1 },
    { "offset-too-large", DATA_OFFSET, ANSWER_PART + 1 },
    { "offset-wraps", DATA_OFFSET, UINT32_MAX },
};

static const Forgery forged_lists[] = {
    { "entries-negative", LIST_ENTRIES, UINT32_MAX },
    { "entries-too-many", LIST_ENTRIES, INT32_MAX },
    { "entry-empty", ENTRY_LENGTH, 0 },
    { "entry-too-long", ENTRY_LENGTH, 2 * SECTOR + 1 },
};

int main(int argc, char **argv)
{
    /* In any order, contiguous or not, of any length and kind of memory */
    static const char *const lists[] = {
        "r512", "r8192", "r1024+r512+r4096", "r4096@8192+r4096@4096+r4096@0",
        "r4096@0+r4096@4096", "256xr4", "256xr512", "512xr1", "r1+r510+r1",
        "r1@9000+r511@200", "r131072", "r65536+r65536", "64xr2048",
        "m512", "m4096+r4096", "r100+m412", "16xm32", "m1+r1022+m1",
        NULL
    };
    static const char *const overlapping[] = {
        "r512@0+r512@0", "r512@0+r512@256", "r512@256+r512@0",
        "r512@1024+r512@4096+r512@1100", "m512@0+m512@100",
        "r131072@0+r4096@8192", NULL
    };
    /* The first entry is what tests look at */
    static const char *const barrier_lists[] = {
        "r512+r512", "r100+r412", "r1+r511+r512", "r65536+r512",
        "r512+r65536+r65536", "m512+r512", NULL
    };
    static const char *const surplus_lists[] = {
        "r1025", "r1000+r100", "r512@4096+r1024@0", NULL
    };
    static const ResetTest reset_tests[] = {
        { "chip", emit_chip_reset },
        { "bus", emit_bus_reset, .bus = true },
    };
    const char *const *list;
    Direction dir;
    int i;

    g_test_init(&argc, &argv, NULL);

    for (dir = READ; dir <= WRITE; dir++) {
        for (list = lists; *list; list++) {
            add_test("list", dir, *list, NULL, test_list);
        }
        for (list = overlapping; *list; list++) {
            add_test("overlap", dir, *list, NULL, test_overlap);
        }
        add_test("list-length", dir, "1100xr2+r360", NULL, test_long);
        add_test("interrupt-after-64", dir, "128xr8", NULL,
                 test_interrupt_after_64);
        add_test("indirect", dir, "r512+r100+r412", NULL, test_indirect);
        add_test("indirect", dir, "128xr8", NULL, test_indirect);
        add_test("table", dir, "r512+r100+r412", NULL, test_table);
        add_test("table", dir, "256xr512", NULL, test_table);
        add_test("scripts-ram", dir, "r512+r100+r412", NULL, test_scripts_ram);
        add_test("no-disconnect", dir, "r512+r512", NULL, test_no_disconnect);
        add_test("single-step", dir, "r512+r512", NULL, test_single_step);
        add_test("no-barrier", dir, "r512+r512", NULL, test_no_barrier);
        for (list = barrier_lists; *list; list++) {
            add_test("interrupt", dir, *list, NULL, test_interrupt);
            add_test("interrupt-on-the-fly", dir, *list, NULL,
                     test_interrupt_on_the_fly);
            add_test("store", dir, *list, NULL, test_store);
            add_test("less", dir, *list, NULL, test_less);
            add_test("wrong-direction", dir, *list, NULL,
                     test_wrong_direction);
            add_test("expect-status", dir, *list, NULL, test_expect_status);
            add_test("interrupt-after-data", dir, *list, NULL,
                     test_interrupt_after_data);
            add_test("memory-after-data", dir, *list, NULL,
                     test_memory_after_data);
        }
        for (list = surplus_lists; *list; list++) {
            add_test("more", dir, *list, NULL, test_more);
        }
        add_test("error", dir, "r512+r512", NULL, test_error);
        add_test("error", dir, "m512", NULL, test_error);
        add_test("error-at-barrier", dir, "r512+r512", NULL,
                 test_error_at_barrier);
        add_test("off", dir, "r512", NULL, test_off);
        add_test("off", dir, "256xr512", NULL, test_off);
    }
    for (dir = READ; dir <= WRITE; dir++) {
        add_test("all-tags", dir, "r512", NULL, test_all_tags);
        add_test("out-of-order", dir, "r512", NULL, test_out_of_order);
        add_test("in-flight-is-no-barrier", dir, "r512", NULL,
                 test_in_flight_is_no_barrier);
        add_test("abort-tag", dir, "r512", NULL, test_abort_tag);
        add_test("abort", dir, "r512", NULL, test_abort);
        add_test("clear-queue", dir, "r512", NULL, test_clear_queue);
        add_test("bus-device-reset", dir, "r512", NULL, test_bus_device_reset);
        add_test("bus-reset", dir, "r512", NULL, test_bus_reset);
        add_test("chip-reset/stopped", dir, "r512", NULL, test_chip_reset);
        add_test("chip-reset/waiting", dir, "r512", "w", test_chip_reset);
        add_test("chip-reset/barrier", dir, "r512+r512", NULL,
                 test_chip_reset_at_barrier);
        add_test("system-reset", dir, "r512", NULL, test_system_reset);
    }
    for (dir = READ; dir <= WRITE; dir++) {
        add_test("reset-by-status", dir, "r512", NULL, test_reset_by_status);
        add_test("stop", dir, "r512+r512", NULL, test_stop);
        add_test("stop/bus-reset", dir, "r512+r512", NULL,
                 test_stop_and_bus_reset);
        add_test("stop/before-reselection", dir, "r512", NULL,
                 test_stop_before_reselection);
        add_test("stop/interrupt-at-reselection", dir, "r512", NULL,
                 test_interrupt_at_reselection);
        add_test("leave-target", dir, "r512+r512", NULL, test_leave_target);
        add_test("leave-disconnecting-target", dir, "r512+r512", NULL,
                 test_leave_disconnecting_target);
        add_test("ignore-disconnect/select", dir, "r512+r512", "select",
                 test_ignore_disconnect);
        add_test("ignore-disconnect/wait", dir, "r512+r512", "wait",
                 test_ignore_disconnect);
        add_test("empty-move", dir, "r512+r512", NULL, test_empty_move);
        add_test("unplug/queue", dir, "r512", NULL, test_unplug);
        add_test("unplug/complete", dir, "r100+r412", NULL,
                 test_unplug_complete);
        add_test("unplug/barrier", dir, "r512", NULL, test_unplug_at_barrier);
        add_test("migrate/interrupt", dir, "r512+r512", NULL,
                 test_migrate_at_interrupt);
        add_test("migrate/interrupt", dir, "r65536+r65536+r512", NULL,
                 test_migrate_at_interrupt);
        add_test("migrate/before-data", dir, "r512+r512", NULL,
                 test_migrate_before_data);
        add_test("migrate/collecting", dir, "r512+r512", NULL,
                 test_migrate_collecting);
        add_test("migrate/queue", dir, "r512", NULL, test_migrate_queue);
        add_test("migrate/off", dir, "r512+r512", NULL, test_migrate_off);
    }
    for (i = 0; i < ARRAY_SIZE(forged_answers); i++) {
        g_autofree char *path =
            g_strdup_printf("lsi-dma/migrate/forged-answer/%s",
                            forged_answers[i].name);

        qtest_add_data_func(path, &forged_answers[i], test_forged_answer);
    }
    for (i = 0; i < ARRAY_SIZE(forged_lists); i++) {
        g_autofree char *path =
            g_strdup_printf("lsi-dma/migrate/forged-list/%s",
                            forged_lists[i].name);

        qtest_add_data_func(path, &forged_lists[i], test_forged_list);
    }
    qtest_add_data_func("lsi-dma/migrate/answer/disk", GINT_TO_POINTER(0),
                        test_migrate_answer);
    qtest_add_data_func("lsi-dma/migrate/answer/target", GINT_TO_POINTER(1),
                        test_migrate_answer);
    qtest_add_func("lsi-dma/migrate/parameters/part", test_migrate_parameters);
    qtest_add_func("lsi-dma/migrate/parameters/disk-full",
                   test_migrate_parameters_disk_full);
    add_test("migrate/disk-full", WRITE, "r512+r512", NULL,
             test_migrate_disk_full);
    add_test("migrate/disk-full-barrier", WRITE, "r512+r512", NULL,
             test_migrate_disk_full_at_barrier);
    for (dir = READ; dir <= WRITE; dir++) {
        add_test("810/list", dir, "r512+r100+r412", NULL, test_810_list);
        add_test("810/list", dir, "r100+m412", NULL, test_810_list);
        add_test("810/off", dir, "r512", NULL, test_810_off);
    }
    add_test("reset-by-data", READ, "r512", NULL, test_reset_by_data);
    for (i = 0; i < ARRAY_SIZE(reset_tests); i++) {
        g_autofree char *path = g_strdup_printf("lsi-dma/reset-by-script/%s",
                                                reset_tests[i].name);

        qtest_add_data_func(path, &reset_tests[i], test_reset_by_script);
    }
    qtest_add_func("lsi-dma/reset-by-message", test_reset_by_message);
    qtest_add_func("lsi-dma/reset-between-parts", test_reset_between_parts);
    qtest_add_func("lsi-dma/unplug/between-parts", test_unplug_between_parts);
    qtest_add_func("lsi-dma/command/request-ends",
                   test_command_when_request_ends);
    qtest_add_func("lsi-dma/stop/before-end", test_stop_before_end);
    qtest_add_func("lsi-dma/stop/pause", test_stop_in_pause);
    qtest_add_func("lsi-dma/stop/interrupt-in-pause", test_interrupt_in_pause);
    qtest_add_func("lsi-dma/stop/before-signal", test_stop_before_signal);
    qtest_add_func("lsi-dma/abort/request-ends", test_abort_when_request_ends);
    qtest_add_func("lsi-dma/config/request-ends",
                   test_config_when_request_ends);
    qtest_add_func("lsi-dma/eject/request-ends",
                   test_eject_when_request_ends);
    qtest_add_func("lsi-dma/eject/at-once", test_eject_at_once);
    qtest_add_func("lsi-dma/eject/by-cpu", test_eject_by_cpu);
    add_test("list", WRITE, "o512", NULL, test_list);
    add_test("list", READ, "r512+o512+h512", NULL, test_list);
    add_test("list", WRITE, "r512+h512", NULL, test_list);
    add_test("disk-full", WRITE, "r512+r512", NULL, test_disk_full);
    qtest_add_func("lsi-dma/high-memory/direct", test_direct_64);
    qtest_add_func("lsi-dma/high-memory/table-40", test_table_40);
    qtest_add_func("lsi-dma/high-memory/table-64", test_table_64);
    qtest_add_func("lsi-dma/endless-memory-move", test_endless_memory_move);
    qtest_add_func("lsi-dma/inquiry", test_inquiry);
    qtest_add_func("lsi-dma/mixed-queue", test_mixed_queue);
    qtest_add_func("lsi-dma/reuse-buffer", test_reuse_buffer);
    qtest_add_func("lsi-dma/refill-buffer", test_refill_buffer);
    qtest_add_func("lsi-dma/change-table", test_change_table);
    qtest_add_func("lsi-dma/data-is-table", test_data_is_table);
    qtest_add_func("lsi-dma/data-is-script", test_data_is_script);

    return test_run();
}
