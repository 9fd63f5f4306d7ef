/*
 * Tests of DMA to and from every kind of guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/nvme.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "libqos/pci-pc.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "dma-test-util.h"

#define RAM_MIB                 32
#define LSI_SLOT                4
#define LSI_SCRIPTS_RAM_BAR     2

/*
 * 82441FX (PMC) datasheet, "Programmable Attribute Map Registers": a register
 * is for 32 KiB, the lower nibble for the lower 16 KiB.
 */
#define PMC_DEVFN               QPCI_DEVFN(0, 0)
#define PMC_PAM1                0x5a
#define PAM_LOW_IS_RAM          0x03

/* The same in the Q35's host bridge: Intel 3 Series Chipset datasheet */
#define MCH_PAM1                0x91

#define PAM_COUNT               4

static const char kind_letter[KINDS + 1] = "trmohes";

static Machine *shared_machine;

const char *dir_name(Direction dir)
{
    return dir == READ ? "read" : "write";
}

void fail(const char *fmt, ...)
{
    g_autofree char *message = NULL;
    va_list ap;

    va_start(ap, fmt);
    message = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assertion_message(G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, message);
    abort();
}

/*
 * A guest register access returns only when QEMU's main loop answers.  When
 * it never does, end QEMU: then libqtest sees the connection close, and
 * fails the test.
 */
static pid_t watched_pid;

static void watchdog_expired(int signal)
{
    static const char message[] = "QEMU's main loop does not answer\n";

    if (watched_pid) {
        if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0) {
            /* Nothing can be done about it */
        }
        kill(watched_pid, SIGKILL);
    }
}

static void watchdog_start(QTestState *qts)
{
    struct sigaction act = { .sa_handler = watchdog_expired };

    watched_pid = qtest_pid(qts);
    sigaction(SIGALRM, &act, NULL);
    alarm(PATIENCE_SECONDS + 10);
}

void machine_still_answers(Machine *m)
{
    watchdog_start(m->qts);
}

static void watchdog_stop(void)
{
    alarm(0);
    watched_pid = 0;
}

int64_t patience_ends(void)
{
    return g_get_monotonic_time() + PATIENCE_SECONDS * G_USEC_PER_SEC;
}

/* Let QEMU go on for a moment before a register is polled again */
void wait_before_poll(int64_t deadline, const char *what)
{
    if (g_get_monotonic_time() > deadline) {
        fail("%s: not within %d seconds", what, PATIENCE_SECONDS);
    }
    g_usleep(50);
}

void scramble(uint8_t *buf, size_t len, uint32_t seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    size_t i;

    for (i = 0; i < len; i++) {
        buf[i] = g_rand_int(rand) >> 24;
    }
}

void assert_same(const char *where, uint64_t base, const uint8_t *got,
                 const uint8_t *want, size_t len)
{
    size_t i, differing = 0, first = 0;

    if (!memcmp(got, want, len)) {
        return;
    }
    for (i = len; i-- > 0; ) {
        if (got[i] != want[i]) {
            differing++;
            first = i;
        }
    }
    fail("%s: %zu bytes differ, first at 0x%" PRIx64 " (+0x%zx): "
         "0x%02x instead of 0x%02x", where, differing, base + first, first,
         got[first], want[first]);
}

/* Guest memory */

bool region_is_writable(const Region *r, uint32_t offset)
{
    return r->stripe ? offset / r->stripe % 2 == 0 : offset < r->writable;
}

void read_in_pieces(QTestState *qts, uint64_t addr, void *buf, size_t size)
{
    size_t offset, len;

    for (offset = 0; offset < size; offset += len) {
        len = MIN(size - offset, 32 * KiB);
        qtest_bufread(qts, addr + offset, (char *)buf + offset, len);
    }
}

static void region_setup(Machine *m, Kind kind, const char *name,
                         uint64_t base, uint32_t size, uint32_t writable,
                         uint32_t stripe)
{
    Region *r = &m->region[kind];
    g_autofree uint8_t *seen = g_malloc(size);
    uint32_t i;

    *r = (Region) {
        .name = name,
        .base = base,
        .size = size,
        .writable = writable,
        .stripe = stripe,
        .want = g_malloc(size),
    };
    scramble(r->want, size, kind);
    if (writable) {
        qtest_bufwrite(m->qts, base, r->want, writable);
    }
    /* Whatever answers, or does not, in the rest: it shall not change */
    read_in_pieces(m->qts, base, seen, size);
    for (i = 0; i < size; i++) {
        if (!region_is_writable(r, i)) {
            r->want[i] = seen[i];
        }
    }
}

void region_write(Machine *m, Kind kind, uint32_t offset, const void *buf,
                  uint32_t len)
{
    Region *r = &m->region[kind];

    g_assert_cmpuint(offset + len, <=, r->writable);
    memcpy(r->want + offset, buf, len);
    qtest_bufwrite(m->qts, r->base + offset, buf, len);
}

void region_accept(Machine *m, Kind kind, uint32_t offset, uint32_t len)
{
    Region *r = &m->region[kind];

    g_assert_cmpuint(offset + len, <=, r->writable);
    if (len) {
        read_in_pieces(m->qts, r->base + offset, r->want + offset, len);
    }
}

static void assert_memory(Machine *m)
{
    int kind;

    for (kind = 0; kind < KINDS; kind++) {
        Region *r = &m->region[kind];
        g_autofree uint8_t *got = g_malloc(r->size);

        read_in_pieces(m->qts, r->base, got, r->size);
        assert_same(r->name, r->base, got, r->want, r->size);
    }
}

uint8_t *image_contents(Machine *m, int ch)
{
    uint8_t *buf = g_malloc(m->disk_size);

    g_assert_cmpint(pread(m->image_fd[ch], buf, m->disk_size, 0), ==,
                    m->disk_size);
    return buf;
}

static void assert_images(Machine *m)
{
    int i;

    for (i = 0; i < m->setup.disks; i++) {
        g_autofree char *name = g_strdup_printf("disk %d", i);
        g_autofree uint8_t *got = image_contents(m, i);

        assert_same(name, 0, got, m->image[i], m->disk_size);
    }
}

void assert_everything(Machine *m)
{
    assert_memory(m);
    assert_images(m);
}

/* The machine */

static void machine_enable_pci(Machine *m)
{
    QPCIDevice *pmc = qpci_device_find(m->pci, PMC_DEVFN);
    int pam1 = m->setup.q35 ? MCH_PAM1 : PMC_PAM1;
    int i;

    for (i = 0; i < PAM_COUNT; i++) {
        qpci_config_writeb(pmc, pam1 + i, PAM_LOW_IS_RAM);
    }
    g_free(pmc);

    m->hba = qpci_device_find(m->pci, m->setup.hba_devfn);
    g_assert_nonnull(m->hba);
    m->hba_bar = qpci_iomap(m->hba, m->setup.hba_bar, NULL);
    qpci_device_enable(m->hba);

    m->lsi = qpci_device_find(m->pci, QPCI_DEVFN(LSI_SLOT, 0));
    g_assert_nonnull(m->lsi);
    m->region[MMIO].base = qpci_iomap(m->lsi, LSI_SCRIPTS_RAM_BAR, NULL).addr;
    qpci_device_enable(m->lsi);
}

static void machine_disable_pci(Machine *m)
{
    g_clear_pointer(&m->hba, g_free);
    g_clear_pointer(&m->lsi, g_free);
}

/* No failure can leave it behind; /proc/PID/fd has a name for it */
int anonymous_file(const void *contents, size_t len)
{
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("dma-test-XXXXXX", &name, NULL);

    g_assert_cmpint(fd, >=, 0);
    unlink(name);
    g_assert_cmpint(pwrite(fd, contents, len, 0), ==, len);
    return fd;
}

/* Start QEMU on the machine's images */
static void machine_launch(Machine *m, const char *more)
{
    g_autoptr(GString) drives = g_string_new(NULL);
    g_autofree uint8_t *rom = g_malloc(64 * KiB);
    int bios_fd, i;

    /* No instruction of the guest is executed: any contents will do */
    scramble(rom, 64 * KiB, 0xb105);
    bios_fd = anonymous_file(rom, 64 * KiB);

    for (i = 0; i < m->setup.disks; i++) {
        if (m->setup.blockdev) {
            g_string_append_printf(drives, "-blockdev file,node-name=file%d,"
                                   "filename=/proc/%d/fd/%d%s -blockdev raw,"
                                   "node-name=drive%d,file.driver=blkdebug,"
                                   "file.image=file%d%s ",
                                   i, getpid(), m->image_fd[i],
                                   m->setup.blockdev, i, i,
                                   m->setup.drive[i] ?: "");
            continue;
        }
        g_string_append_printf(drives, "-drive if=none,id=drive%d,format=raw,"
                               "file.driver=blkdebug,file.image.driver=file,"
                               "file.image.filename=/proc/%d/fd/%d%s ",
                               i, getpid(), m->image_fd[i],
                               m->setup.drive[i] ?: "");
    }
    m->qts = qtest_initf("-machine %s -nodefaults -m %d -bios /proc/%d/fd/%d "
                         "-device lsi53c895a,addr=%d %s%s%s",
                         m->setup.q35 ? "q35" : "pc", RAM_MIB, getpid(),
                         bios_fd, LSI_SLOT, drives->str, m->setup.machine,
                         more);
    close(bios_fd);
    watchdog_start(m->qts);
    qtest_irq_intercept_in(m->qts, "ioapic");
    m->pci = qpci_new_pc(m->qts, NULL);
}

static Machine *machine_start(const Setup *setup)
{
    Machine *m = g_new0(Machine, 1);
    uint32_t ram_size = setup->ram_size ?: 176 * KiB;
    int i;

    m->setup = *setup;
    m->disk_size = setup->disk_size ?: DISK_SIZE;
    for (i = 0; i < setup->disks; i++) {
        m->image[i] = g_malloc(m->disk_size);
        scramble(m->image[i], m->disk_size, 0xd150 + i);
        m->image_fd[i] = anonymous_file(m->image[i], m->disk_size);
    }
    machine_launch(m, "");
    machine_enable_pci(m);

    region_setup(m, TABLE, "tables", 1 * MiB, 64 * KiB, 64 * KiB, 0);
    region_setup(m, RAM, "RAM", 2 * MiB, ram_size, ram_size, 0);
    region_setup(m, MMIO, "MMIO", m->region[MMIO].base,
                 LSI_SCRIPTS_RAM_SIZE, LSI_SCRIPTS_RAM_SIZE, 0);
    region_setup(m, ROM, "ROM", 4 * GiB - 16 * KiB, 20 * KiB, 0, 0);
    region_setup(m, HOLE, "hole", 0xd0000000, 16 * KiB, 0, 0);
    region_setup(m, EDGE, "edge of RAM", RAM_MIB * MiB - 4 * KiB, 12 * KiB,
                 4 * KiB, 0);
    region_setup(m, STRIPES, "stripes", 0xc0000, 128 * KiB, 128 * KiB,
                 16 * KiB);

    return m;
}

static void machine_stop(Machine *m)
{
    int i;

    machine_disable_pci(m);
    qpci_free_pc(m->pci);
    qtest_quit(m->qts);
    for (i = 0; i < KINDS; i++) {
        g_free(m->region[i].want);
    }
    for (i = 0; i < m->setup.disks; i++) {
        close(m->image_fd[i]);
        g_free(m->image[i]);
    }
    g_free(m);
}

void machine_reset(Machine *m)
{
    qtest_system_reset(m->qts);
    machine_disable_pci(m);
    machine_enable_pci(m);
}

void wait_for_migration(QTestState *qts, const char *want)
{
    int64_t deadline = patience_ends();
    bool ended = false;

    while (!ended) {
        QDict *info = qtest_qmp_assert_success_ref(
            qts, "{ 'execute': 'query-migrate' }");
        const char *status = qdict_get_try_str(info, "status");

        ended = !g_strcmp0(status, want);
        if (!ended && (!g_strcmp0(status, "failed") ||
                       !g_strcmp0(status, "completed"))) {
            fail("migration %s: %s", status,
                 qdict_get_try_str(info, "error-desc") ?: "");
        }
        qobject_unref(info);
        if (!ended) {
            wait_before_poll(deadline, "migration");
        }
    }
}

void migrate_to_file(QTestState *qts, const char *path)
{
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
    wait_for_migration(qts, "completed");
}

void migrate_from_file(QTestState *qts, const char *path, const char *want)
{
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-incoming', "
                             "'arguments': { 'uri': %s, "
                             "'exit-on-error': false } }", uri);
    wait_for_migration(qts, want);
}

void forge_file(const char *path, Forge *forge, const void *opaque)
{
    g_autofree char *stream = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(path, &stream, &len, NULL));
    forge(stream, len, opaque);
    g_assert_true(g_file_set_contents(path, stream, len, NULL));
}

char *find_in_stream(char *stream, gsize len, const void *fields, size_t size)
{
    char *p = memmem(stream, len, fields, size);

    g_assert_nonnull(p);
    g_assert_null(memmem(p + 1, stream + len - p - 1, fields, size));
    return p;
}

void machine_migrate_begin(Machine *m, Migration *g)
{
    QPCIBus *from_pci = m->pci;
    g_autofree char *uri = NULL;

    g->dir = g_dir_make_tmp("dma-test-XXXXXX", NULL);
    g->path = g_build_filename(g->dir, "migration", NULL);
    uri = g_strdup_printf("unix:%s", g->path);

    g->from = m->qts;
    machine_launch(m, " -incoming defer");
    g->to = m->qts;
    g->to_pci = m->pci;
    m->qts = g->from;
    m->pci = from_pci;
    watchdog_start(m->qts);

    qtest_qmp_assert_success(g->to, "{ 'execute': 'migrate-incoming', "
                             "'arguments': { 'uri': %s } }", uri);
    qtest_qmp_assert_success(g->from, "{ 'execute': 'migrate', "
                             "'arguments': { 'uri': %s } }", uri);
}

void machine_migrate_finish(Machine *m, Migration *g)
{
    wait_for_migration(g->from, "completed");
    wait_for_migration(g->to, "completed");
    machine_disable_pci(m);
    qpci_free_pc(m->pci);
    m->qts = g->to;
    m->pci = g->to_pci;
    watchdog_start(m->qts);

    /* All registers are as they were */
    m->hba = qpci_device_find(m->pci, m->setup.hba_devfn);
    g_assert_nonnull(m->hba);
    m->lsi = qpci_device_find(m->pci, QPCI_DEVFN(LSI_SLOT, 0));
    g_assert_nonnull(m->lsi);
}

void machine_migrate_end(Migration *g)
{
    qtest_quit(g->from);
    unlink(g->path);
    rmdir(g->dir);
    g_free(g->path);
    g_free(g->dir);
}

void machine_migrate(Machine *m)
{
    Migration g;

    machine_migrate_begin(m, &g);
    machine_migrate_finish(m, &g);
    machine_migrate_end(&g);
}

void machine_migrate_forged(Machine *m, Forge *forge, const void *opaque)
{
    g_autofree char *dir = g_dir_make_tmp("dma-test-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "stream", NULL);
    QTestState *from = m->qts;
    QPCIBus *from_pci = m->pci;

    migrate_to_file(from, path);
    forge_file(path, forge, opaque);
    machine_launch(m, " -incoming defer");
    migrate_from_file(m->qts, path, "failed");
    qtest_quit(m->qts);
    qpci_free_pc(m->pci);
    unlink(path);
    rmdir(dir);

    m->qts = from;
    m->pci = from_pci;
    watchdog_start(from);
    qtest_qmp_assert_success(from, "{ 'execute': 'cont' }");
}

void nvme_enable(QPCIDevice *nvme, QPCIBar regs, uint64_t sq, uint64_t cq,
                 int entries)
{
    int64_t deadline = patience_ends();
    uint32_t cc = 0;

    qpci_io_writel(nvme, regs, NVME_REG_AQA,
                   (entries - 1) << AQA_ASQS_SHIFT |
                   (entries - 1) << AQA_ACQS_SHIFT);
    qpci_io_writeq(nvme, regs, NVME_REG_ASQ, sq);
    qpci_io_writeq(nvme, regs, NVME_REG_ACQ, cq);
    NVME_SET_CC_EN(cc, 1);
    NVME_SET_CC_IOSQES(cc, ctz32(sizeof(NvmeCmd)));
    NVME_SET_CC_IOCQES(cc, ctz32(sizeof(NvmeCqe)));
    qpci_io_writel(nvme, regs, NVME_REG_CC, cc);
    while (!NVME_CSTS_RDY(qpci_io_readl(nvme, regs, NVME_REG_CSTS))) {
        wait_before_poll(deadline, "controller ready");
    }
}

void machine_discard(void)
{
    if (shared_machine) {
        machine_stop(shared_machine);
        shared_machine = NULL;
        watchdog_stop();
    }
}

static bool same_setup(const Setup *a, const Setup *b)
{
    bool same = !g_strcmp0(a->machine, b->machine) && a->disks == b->disks &&
                !g_strcmp0(a->blockdev, b->blockdev) &&
                a->q35 == b->q35 && a->disk_size == b->disk_size &&
                a->ram_size == b->ram_size;
    int i;

    for (i = 0; i < MAX_DISKS; i++) {
        same = same && !g_strcmp0(a->drive[i], b->drive[i]);
    }
    return same;
}

Machine *test_begin(const Setup *setup)
{
    if (shared_machine && !same_setup(&shared_machine->setup, setup)) {
        machine_discard();
    }
    if (!shared_machine) {
        shared_machine = machine_start(setup);
    }
    watchdog_start(shared_machine->qts);
    return shared_machine;
}

void test_end(Machine *m)
{
    assert_everything(m);
    watchdog_stop();
}

int test_run(void)
{
    int ret = g_test_run();

    machine_discard();
    return ret;
}

void blkdebug(Machine *m, int disk, const char *command)
{
    g_autofree char *reply = qtest_hmp(m->qts, "qemu-io -d disk%d \"%s\"",
                                       disk, command);

    g_assert_cmpstr(reply, ==, "");
}

void throttle(Machine *m, int disk, int bytes_per_second,
              int requests_per_second)
{
    g_autofree char *id = g_strdup_printf("disk%d", disk);

    qtest_qmp_assert_success(m->qts, "{ 'execute': 'block_set_io_throttle'"
                             ", 'arguments': { 'id': %s, 'bps': %d, "
                             "'bps_rd': 0, 'bps_wr': 0, 'iops': %d, "
                             "'iops_rd': 0, 'iops_wr': 0 } }",
                             id, bytes_per_second, requests_per_second);
}

int64_t anonymous_memory(Machine *m)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            qtest_pid(m->qts));
    g_autofree char *text = NULL;
    const char *line;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "RssAnon:");
    g_assert_nonnull(line);
    return g_ascii_strtoull(line + strlen("RssAnon:"), NULL, 10) * KiB;
}

/* Lists */

static unsigned int parse_number(const char **p)
{
    unsigned int value;

    g_assert_cmpint(qemu_strtoui(*p, p, 10, &value), ==, 0);
    return value;
}

static GArray *list_parse(const char *text)
{
    GArray *list = g_array_new(false, true, sizeof(Entry));
    g_auto(GStrv) item = g_strsplit(text, "+", -1);
    int i;

    for (i = 0; item[i]; i++) {
        const char *p = item[i];
        unsigned int count = 1;
        Entry e = { };

        if (g_ascii_isdigit(*p)) {
            count = parse_number(&p);
            g_assert(*p++ == 'x');
        }
        g_assert(*p && strchr(kind_letter, *p));
        e.kind = strchr(kind_letter, *p++) - kind_letter;
        e.len = parse_number(&p);
        if (*p == '@') {
            p++;
            e.offset = parse_number(&p);
            e.placed = true;
        }
        g_assert(!*p);
        while (count--) {
            g_array_append_val(list, e);
        }
    }
    return list;
}

/* Spread what has no offset over its region, gaps between and around it */
static void list_place(Machine *m, GArray *list)
{
    uint32_t total[KINDS] = { }, entries[KINDS] = { };
    uint32_t gap[KINDS] = { }, cursor[KINDS] = { };
    int i;

    for (i = 0; i < list->len; i++) {
        Entry *e = &g_array_index(list, Entry, i);

        if (!e->placed) {
            total[e->kind] += e->len;
            entries[e->kind]++;
        }
    }
    for (i = 0; i < KINDS; i++) {
        g_assert_cmpuint(total[i], <=, m->region[i].size);
        gap[i] = (m->region[i].size - total[i]) / (entries[i] + 1);
        gap[i] = ROUND_DOWN(MIN(gap[i], 34), 2);
        cursor[i] = gap[i];
    }
    for (i = 0; i < list->len; i++) {
        Entry *e = &g_array_index(list, Entry, i);

        if (!e->placed) {
            e->offset = cursor[e->kind];
            e->placed = true;
            cursor[e->kind] += e->len + gap[e->kind];
        }
        g_assert_cmpuint(e->offset + e->len, <=, m->region[e->kind].size);
    }
}

/* Which byte of memory does byte @pos of a transfer go to or come from? */
static uint32_t list_find(const GArray *list, size_t pos, Kind *kind)
{
    const Entry *e = &g_array_index(list, Entry, 0);

    for (; pos >= e->len; e++) {
        pos -= e->len;
    }
    *kind = e->kind;
    return e->offset + pos;
}

/* Requests */

/* New contents, which no earlier request has left there or taken away */
static void entry_scramble(Machine *m, const Entry *e)
{
    static uint32_t seed = 0x5eed;
    Region *r = &m->region[e->kind];
    g_autofree uint8_t *buf = g_malloc(e->len);
    uint32_t i;

    scramble(buf, e->len, seed++);
    for (i = 0; i < e->len; i++) {
        if (region_is_writable(r, e->offset + i)) {
            r->want[e->offset + i] = buf[i];
        }
    }
    qtest_bufwrite(m->qts, r->base + e->offset, r->want + e->offset, e->len);
}

void request_init(Machine *m, Request *req, Direction dir, int disk,
                  uint32_t start, uint32_t bytes, const char *list)
{
    int i;

    *req = (Request) {
        .dir = dir,
        .disk = disk,
        .start = start,
        .list = list_parse(list),
    };
    list_place(m, req->list);
    for (i = 0; i < req->list->len; i++) {
        const Entry *e = &g_array_index(req->list, Entry, i);

        req->list_bytes += e->len;
        entry_scramble(m, e);
    }
    req->bytes = bytes ?: req->list_bytes;
    g_assert_cmpuint(req->bytes % SECTOR, ==, 0);
    g_assert_cmpuint(start + req->bytes, <=, m->disk_size);
}

void request_free(Request *req)
{
    g_clear_pointer(&req->list, g_array_unref);
}

uint64_t entry_address(Machine *m, const Entry *e)
{
    return m->region[e->kind].base + e->offset;
}

/* Move what memory shall hold to or from @data, along the list */
static void expect_move(Machine *m, Request *req, uint8_t *data, size_t bytes)
{
    const Entry *e = &g_array_index(req->list, Entry, 0);
    uint32_t i;

    for (; bytes > 0; e++) {
        Region *r = &m->region[e->kind];
        uint8_t *want = r->want + e->offset;
        uint32_t len = MIN(e->len, bytes);

        for (i = 0; i < len; i++) {
            if (req->dir == WRITE) {
                data[i] = want[i];
            } else if (region_is_writable(r, e->offset + i)) {
                want[i] = data[i];
            }
        }
        data += len;
        bytes -= len;
    }
}

void expect_transfer(Machine *m, Request *req, size_t bytes)
{
    expect_move(m, req, m->image[req->disk] + req->start, bytes);
}

void expect_data(Machine *m, Request *req, const uint8_t *data, size_t bytes)
{
    g_assert_cmpint(req->dir, ==, READ);
    expect_move(m, req, (uint8_t *)data, bytes);
}

size_t expect_partial_transfer(Machine *m, Request *req)
{
    size_t i, done = req->bytes;
    g_autofree uint8_t *image = image_contents(m, req->disk);
    uint8_t *now[KINDS];
    int kind;

    for (kind = 0; kind < KINDS; kind++) {
        Region *r = &m->region[kind];

        now[kind] = g_malloc(r->size);
        read_in_pieces(m->qts, r->base, now[kind], r->size);
    }
    for (i = 0; i < done; i++) {
        uint8_t byte = image[req->start + i];
        Kind k;
        uint32_t offset = list_find(req->list, i, &k);
        const Region *r = &m->region[k];

        if (req->dir == WRITE ? byte != r->want[offset]
                              : byte != now[k][offset] &&
                                region_is_writable(r, offset)) {
            done = i;
        }
    }
    for (kind = 0; kind < KINDS; kind++) {
        g_free(now[kind]);
    }
    expect_transfer(m, req, done);
    return done;
}

/* Counters */

void dma_counters_reset(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'x-reset-dma' }");
}

static void add_counter(GString *text, const char *name, uint64_t value)
{
    if (value) {
        g_string_append_printf(text, "%s%s=%" PRIu64, text->len ? " " : "",
                               name, value);
    }
}

/* Elements of a list, each with what it counts and by which reason */
static void add_reasons(GString *text, const QDict *row, const char *list,
                        const char *reason, const char *value)
{
    const QListEntry *entry;

    if (!qdict_haskey(row, list)) {
        return;
    }
    QLIST_FOREACH_ENTRY(qdict_get_qlist(row, list), entry) {
        const QDict *element = qobject_to(QDict, qlist_entry_obj(entry));
        g_autofree char *name =
            g_strdup_printf("%s-%s", list, qdict_get_str(element, reason));

        add_counter(text, name, qdict_get_int(element, value));
    }
}

static char *counters_text(const QDict *row)
{
    static const char *const names[] = {
        "requests", "requests-untouched", "requests-bounced", "requests-split",
        "split-host-requests", "bytes-direct", "bytes-bounced",
        "partial-mappings", "map-client-waits", "whole-map-failures", "direct",
    };
    GString *text = g_string_new(NULL);
    int i;

    for (i = 0; i < ARRAY_SIZE(names); i++) {
        add_counter(text, names[i], qdict_get_try_int(row, names[i], 0));
    }
    add_reasons(text, row, "bounced", "reason", "bytes");
    add_reasons(text, row, "buffered", "reason", "requests");
    add_reasons(text, row, "barriers", "cause", "count");
    return g_string_free(text, false);
}

char *dma_counters(QTestState *qts, const char *device)
{
    QDict *stats = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'x-query-dma' }");
    const QListEntry *entry;
    char *found = NULL;

    if (!g_strcmp0(device, "total")) {
        found = counters_text(stats);
    }
    QLIST_FOREACH_ENTRY(qdict_get_qlist(stats, "devices"), entry) {
        const QDict *row = qobject_to(QDict, qlist_entry_obj(entry));
        g_autofree char *text = counters_text(row);

        if (device ? g_str_has_suffix(qdict_get_str(row, "qom-path"), device)
                   : *text != '\0') {
            g_assert_null(found);
            found = g_steal_pointer(&text);
        }
    }
    qobject_unref(stats);
    return found;
}

char *dma_drive_counters(QTestState *qts, const char *drive)
{
    QDict *stats = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'x-query-dma' }");
    const QListEntry *entry;
    char *found = NULL;

    if (!strcmp(drive, "total")) {
        found = counters_text(qdict_get_qdict(stats, "vectors"));
    }
    QLIST_FOREACH_ENTRY(qdict_get_qlist(stats, "drives"), entry) {
        const QDict *row = qobject_to(QDict, qlist_entry_obj(entry));

        if (!strcmp(qdict_get_str(row, "device"), drive)) {
            g_assert_null(found);
            found = counters_text(row);
        }
    }
    qobject_unref(stats);
    return found;
}

void expect_dma_counters(QTestState *qts, const char *device,
                         const char *text)
{
    g_autofree char *got = dma_counters(qts, device);

    g_assert_cmpstr(got, ==, text);
}

void expect_dma_drive_counters(QTestState *qts, const char *drive,
                               const char *text)
{
    g_autofree char *got = dma_drive_counters(qts, drive);

    g_assert_cmpstr(got, ==, text);
}
