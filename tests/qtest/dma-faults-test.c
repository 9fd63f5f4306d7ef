/*
 * DMA while everything else goes wrong: a random load, and faults at random
 * moments of it
 *
 * All disks of a controller are read and written with random lists.  Between
 * and during the requests the host's disks fail, fill up and end early; drives
 * are throttled, mirrored, snapshotted, ejected and unplugged; the machine
 * stops, is reset, and migrates.  After each fault all of the memory and of the
 * images is compared with what it shall hold: a request that ended well has
 * moved all of its bytes; one that ended with an error, or with its controller,
 * has left each sector old or new; and nothing else has changed.
 *
 *     DMA_FAULTS=1000    so many faults for each controller (default: 30)
 *     DMA_FAULTS_SEED=7  the same sequence again, as far as the host lets
 *     DMA_FAULTS_LOG=F   say which faults, in file F
 *     DMA_FAULTS_INJECT=LIB  a library that lets calls of QEMU's fail, see
 *                            dma-faults-inject.h
 *
 * With it, a campaign has the faults that it makes, too; and there is another
 * one for each controller ("injected"), which has no others.
 *
 * The last line of each controller is a "# campaign" with its figures, as
 * key=value.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "dma-faults-inject.h"
#include "dma-hba-util.h"
#include <sys/mman.h>

#define DEFAULT_FAULTS          30
#define DEFAULT_INJECTED        6
/* A machine gets so many, then comes one with other options */
#define FAULTS_OF_A_MACHINE     40
#define INJECTED_OF_A_MACHINE   12

/* An AioContext opens what its AIO needs when that is first used */
#define LAZY_DESCRIPTORS        4

#define MAX_REQUEST             (64 * KiB)
#define RAM_OF_A_LANE           (88 * KiB)
#define MMIO_OF_A_LANE          (4 * KiB)

typedef struct Lane {
    Request req;
    bool busy;
    /* The nodes of its disk, and their number */
    char node[32];
    char file[32];
    int generation;
} Lane;

typedef struct Fault Fault;

typedef struct Campaign {
    const HbaType *hba;
    Machine *m;
    Setup setup;
    GRand *rand;
    FILE *log;
    int control_fd;
    DmaFaultsControl *control;  /* or NULL, without the library */
    bool only_injected;         /* no faults but those of the library */
    bool fresh;                 /* the machine has just been started */
    Lane lane[HBA_MAX_LANES];
    const char *aio;
    bool stops;                 /* at errors, instead of reporting them */
    bool may_fail;              /* requests, legitimately, for now */
    int descriptors;            /* that QEMU has open when it is idle */

    uint64_t requests;
    uint64_t errors;
    uint64_t unacknowledged;    /* gone with a reset or their disk */
    uint64_t checks;            /* of everything */
    GHashTable *injected;       /* kind: count */
} Campaign;

struct Fault {
    const char *name;
    bool (*possible)(const Campaign *c);
    /* Called at a random moment, with requests in flight or not */
    void (*inject)(Campaign *c);
    bool idle;                  /* called when there are none */
    bool injected;              /* by the library */
};

static const char *const inject_name[INJECT_KINDS] = {
    [INJECT_SUBMIT_EAGAIN] = "submit-eagain",
    [INJECT_SUBMIT_ENOMEM] = "submit-enomem",
    [INJECT_SUBMIT_EINVAL] = "submit-einval",
    [INJECT_SUBMIT_EINTR] = "submit-eintr",
    [INJECT_SUBMIT_SHORT] = "submit-short",
    [INJECT_TRY_MALLOC] = "try-malloc",
    [INJECT_TRY_MALLOC0] = "try-malloc0",
    [INJECT_TRY_MALLOC_N] = "try-malloc-n",
    [INJECT_BOUNCE] = "bounce",
};

static int below(Campaign *c, int n)
{
    return g_rand_int_range(c->rand, 0, n);
}

static bool one_in(Campaign *c, int n)
{
    return below(c, n) == 0;
}

static void G_GNUC_PRINTF(2, 3) note(Campaign *c, const char *fmt, ...)
{
    va_list ap;

    if (c->log) {
        va_start(ap, fmt);
        vfprintf(c->log, fmt, ap);
        va_end(ap);
        fputc('\n', c->log);
        fflush(c->log);
    }
}

static void count_fault(Campaign *c, const char *kind)
{
    int n = GPOINTER_TO_INT(g_hash_table_lookup(c->injected, kind));

    g_hash_table_insert(c->injected, (char *)kind, GINT_TO_POINTER(n + 1));
}

static char *disk_id(int lane)
{
    return g_strdup_printf("disk%d", lane);
}

#define qmp(c, ...) qtest_qmp_assert_success((c)->m->qts, __VA_ARGS__)

/* The load */

/*
 * A list in the lane's part of memory, with gaps between its entries: nothing
 * but a comparison of all memory shows what is written there.
 */
static char *random_list(Campaign *c, int lane, uint32_t bytes)
{
    const HbaType *hba = c->hba;
    bool mmio = hba->max_mmio && one_in(c, 2);
    uint32_t ram_at = lane * RAM_OF_A_LANE;
    uint32_t mmio_at = lane * MMIO_OF_A_LANE;
    uint32_t mmio_end = mmio_at + MIN(hba->max_mmio, MMIO_OF_A_LANE);
    int entries = 1 + below(c, one_in(c, 3) ? hba->max_entries :
                               MIN(hba->max_entries, 4));
    int unit = hba->even ? 2 : 1;
    GString *list = g_string_new(NULL);
    uint32_t left = bytes;

    while (left) {
        uint32_t len = left;
        bool in_mmio;

        if (entries > 1 && left > unit) {
            uint32_t fair = MAX(2 * (left / entries), 2 * unit);

            len = MIN(left, unit + below(c, fair / unit) * unit);
        }
        entries--;
        in_mmio = mmio && one_in(c, 2) && mmio_at + unit < mmio_end;
        if (in_mmio) {
            /* As much as there is room; the rest is another entry */
            len = MIN(len, (mmio_end - mmio_at) / unit * unit);
            /* ... but a controller with few of them gets no more */
            if (hba->max_entries < 8 && len < left && entries < 1) {
                in_mmio = false;
                len = left;
            }
        }
        if (entries <= 0 && !in_mmio) {
            len = left;
        }
        g_string_append_printf(list, "%s%c%u@%u", list->len ? "+" : "",
                               in_mmio ? 'm' : 'r', len,
                               in_mmio ? mmio_at : ram_at);
        if (in_mmio) {
            mmio_at += len + below(c, 8) * 2;
        } else {
            ram_at += len + below(c, 16) * 2;
        }
        left -= len;
    }
    return g_string_free(list, false);
}

/* A QEMU that has just been started: these nodes, so many descriptors */
static void begin_with_nodes(Campaign *c)
{
    int n;

    for (n = 0; n < c->hba->lanes; n++) {
        Lane *lane = &c->lane[n];

        lane->generation = 0;
        snprintf(lane->node, sizeof(lane->node), "drive%d", n);
        snprintf(lane->file, sizeof(lane->file), "file%d", n);
    }
    c->descriptors = 0;
}

static bool is_running(Campaign *c)
{
    QDict *status = qtest_qmp_assert_success_ref(
        c->m->qts, "{ 'execute': 'query-status' }");
    bool running = qdict_get_bool(status, "running");

    qobject_unref(status);
    return running;
}

/* The machine has stopped at an error: the disk is all right now, go on */
static void go_on_if_stopped(Campaign *c)
{
    if (!is_running(c)) {
        note(c, "cont");
        count_fault(c, "stopped-at-error");
        qmp(c, "{ 'execute': 'cont' }");
    }
}

static void submit(Campaign *c, int n)
{
    Lane *lane = &c->lane[n];
    uint32_t sector = c->hba->cd ? CD_SECTOR : SECTOR;
    uint32_t most = MAX_REQUEST / sector;
    uint32_t sectors = 1 + below(c, one_in(c, 2) ? most : MIN(most, 8));
    uint32_t start = below(c, c->m->disk_size / sector - sectors + 1);
    Direction dir = c->hba->cd || one_in(c, 2) ? READ : WRITE;
    g_autofree char *list = random_list(c, n, sectors * sector);

    g_assert_false(lane->busy);
    go_on_if_stopped(c);
    note(c, "submit lane %d %s %u sectors from %u: %s", n, dir_name(dir),
         sectors, start, list);
    request_init(c->m, &lane->req, dir, n, start * sector, 0, list);
    c->hba->submit(c->m, n, &lane->req);
    lane->busy = true;
    c->requests++;
}

/*
 * The request did not end well: each sector of the disk is old or new, each
 * byte of memory as well.  Expect what there is.
 */
static void settle(Campaign *c, Request *req)
{
    Machine *m = c->m;
    g_autofree uint8_t *moved = g_malloc(req->bytes);
    uint8_t *disk = m->image[req->disk] + req->start;
    uint32_t pos = 0, i, s;
    int e;

    for (e = 0; e < req->list->len && pos < req->bytes; e++) {
        const Entry *entry = &g_array_index(req->list, Entry, e);
        uint8_t *want = m->region[entry->kind].want + entry->offset;
        uint32_t len = MIN(entry->len, req->bytes - pos);
        g_autofree uint8_t *now = g_malloc(len);

        if (req->dir == WRITE) {
            memcpy(moved + pos, want, len);
        } else {
            qtest_bufread(m->qts, entry_address(m, entry), now, len);
            for (i = 0; i < len; i++) {
                if (now[i] == disk[pos + i]) {
                    want[i] = now[i];
                }
            }
        }
        pos += len;
    }
    if (req->dir == WRITE) {
        g_autofree uint8_t *image = image_contents(m, req->disk);

        for (s = 0; s < req->bytes; s += SECTOR) {
            if (!memcmp(image + req->start + s, moved + s, SECTOR)) {
                memcpy(disk + s, moved + s, SECTOR);
            }
        }
    }
}

static void ended(Campaign *c, int n, Progress progress)
{
    Lane *lane = &c->lane[n];

    note(c, "lane %d ended %s", n,
         progress == ENDED_WELL ? "well" : "with an error");
    lane->busy = false;
    if (progress == ENDED_WELL) {
        expect_transfer(c->m, &lane->req, lane->req.bytes);
    } else {
        if (!c->may_fail) {
            fail("a request of %s ends with an error", c->hba->name);
        }
        c->errors++;
        settle(c, &lane->req);
    }
    request_free(&lane->req);
}

/* The request is gone, and nobody says how far it came */
static void forget(Campaign *c, int n)
{
    Lane *lane = &c->lane[n];

    if (lane->busy) {
        note(c, "lane %d: gone", n);
        lane->busy = false;
        c->unacknowledged++;
        settle(c, &lane->req);
        request_free(&lane->req);
    }
}

static void forget_all(Campaign *c)
{
    int n;

    for (n = 0; n < c->hba->lanes; n++) {
        forget(c, n);
    }
}

/* Look after requests for a random while */
static void poll_some(Campaign *c)
{
    int times = below(c, 12), n;

    while (times-- > 0) {
        n = below(c, c->hba->lanes);
        if (c->lane[n].busy) {
            Progress progress = hba_poll(c->m, c->hba, n);

            if (progress != IN_FLIGHT) {
                ended(c, n, progress);
            }
        } else if (one_in(c, 2)) {
            submit(c, n);
        }
    }
}

static void finish_all(Campaign *c)
{
    int64_t deadline = patience_ends();
    bool busy = true;
    int n, polls = 0;

    while (busy) {
        busy = false;
        for (n = 0; n < c->hba->lanes; n++) {
            if (c->lane[n].busy) {
                Progress progress = hba_poll(c->m, c->hba, n);

                if (progress == IN_FLIGHT) {
                    busy = true;
                } else {
                    ended(c, n, progress);
                }
            }
        }
        if (busy) {
            if (++polls % 64 == 0) {
                go_on_if_stopped(c);
            }
            wait_before_poll(deadline, "end of requests");
        }
    }
}

static void some_load(Campaign *c, int requests)
{
    while (requests-- > 0) {
        int n = below(c, c->hba->lanes);

        if (c->lane[n].busy) {
            finish_all(c);
        }
        submit(c, n);
        poll_some(c);
    }
}

/* Errors are over */
static void all_well(Campaign *c)
{
    finish_all(c);
    go_on_if_stopped(c);
    hba_clear_attention(c->m, c->hba);
    c->may_fail = false;
}

/* Faults of the host's disk: a blkdebug node for a while, in place of others */

static bool always(const Campaign *c)
{
    return true;
}

static bool can_write(const Campaign *c)
{
    return !c->hba->cd;
}

static void set_node(Campaign *c, int n, const char *node)
{
    g_autofree char *id = disk_id(n);
    g_autofree char *path = g_strdup_printf("/machine/peripheral/%s", id);

    note(c, "lane %d: node %s", n, node);
    qmp(c, "{ 'execute': 'qom-set', 'arguments': { 'path': %s, "
        "'property': 'drive', 'value': %s } }", path, node);
}

/* The @nth request of this kind from now on fails, once */
static void insert_error(Campaign *c, int n, bool write, int error, int nth)
{
    const char *event = write ? "write_aio" : "read_aio";
    QDict *blkdebug = qdict_new(), *rule = qdict_new();
    QList *states = qlist_new(), *rules = qlist_new();
    int state;

    for (state = 1; state < nth; state++) {
        QDict *set = qdict_new();

        qdict_put_str(set, "event", event);
        qdict_put_int(set, "state", state);
        qdict_put_int(set, "new_state", state + 1);
        qlist_append(states, set);
    }
    qdict_put_str(rule, "event", event);
    qdict_put_int(rule, "state", nth);
    qdict_put_str(rule, "iotype", write ? "write" : "read");
    qdict_put_int(rule, "errno", error);
    qdict_put_bool(rule, "once", true);
    qdict_put_bool(rule, "immediately", one_in(c, 2));
    qlist_append(rules, rule);
    qdict_put_str(blkdebug, "driver", "blkdebug");
    qdict_put_str(blkdebug, "image", c->lane[n].file);
    qdict_put(blkdebug, "inject-error", rules);
    if (nth > 1) {
        qdict_put(blkdebug, "set-state", states);
    } else {
        qobject_unref(states);
    }

    note(c, "lane %d: %s %d fails (%d)", n, event, nth, error);
    qmp(c, "{ 'execute': 'blockdev-add', 'arguments': { 'driver': 'raw', "
        "'node-name': 'faulty', 'file': %p } }", QOBJECT(blkdebug));
    set_node(c, n, "faulty");
}

static void remove_error(Campaign *c, int n)
{
    set_node(c, n, c->lane[n].node);
    qmp(c, "{ 'execute': 'blockdev-del', "
        "'arguments': { 'node-name': 'faulty' } }");
}

static void fail_nth(Campaign *c, bool write, int error)
{
    int n = below(c, c->hba->lanes);
    int nth = 1 + below(c, 4);

    c->may_fail = !c->stops && error != ENOSPC;
    insert_error(c, n, write, error, nth);
    some_load(c, 2 * nth + below(c, 3));
    finish_all(c);
    remove_error(c, n);
}

static void read_error(Campaign *c)
{
    fail_nth(c, false, EIO);
}

static void write_error(Campaign *c)
{
    fail_nth(c, true, EIO);
}

/* As a disk does on a medium error, and as a network file system does */
static void read_eagain(Campaign *c)
{
    fail_nth(c, false, EAGAIN);
}

static void disk_full(Campaign *c)
{
    fail_nth(c, true, ENOSPC);
}

/* The image ends in the middle of a request: the rest reads as zeroes */
static void short_image(Campaign *c)
{
    Machine *m = c->m;
    int n = below(c, c->hba->lanes);
    uint32_t sector = c->hba->cd ? CD_SECTOR : SECTOR;
    uint32_t end = m->disk_size - (1 + below(c, MAX_REQUEST / 512 - 1)) * 512;
    uint32_t start = end / sector * sector;
    g_autofree uint8_t *rest = g_memdup2(m->image[n] + end, m->disk_size - end);
    g_autofree char *list = NULL;
    int64_t deadline = patience_ends();
    Progress progress;
    Request req;

    note(c, "lane %d: the image ends at %u", n, end);
    g_assert_cmpint(ftruncate(m->image_fd[n], end), ==, 0);
    memset(m->image[n] + end, 0, m->disk_size - end);
    list = random_list(c, n, m->disk_size - start);
    request_init(m, &req, READ, n, start, 0, list);
    c->hba->submit(m, n, &req);
    c->requests++;
    while ((progress = hba_poll(m, c->hba, n)) == IN_FLIGHT) {
        wait_before_poll(deadline, "end of request");
    }
    g_assert_cmpint(progress, ==, ENDED_WELL);
    expect_transfer(m, &req, req.bytes);
    request_free(&req);
    g_assert_cmpint(pwrite(m->image_fd[n], rest, m->disk_size - end, end), ==,
                    m->disk_size - end);
    memcpy(m->image[n] + end, rest, m->disk_size - end);
}

/* Faults of administrators */

static void change_limits(Campaign *c)
{
    int n = below(c, c->hba->lanes);
    int bps = one_in(c, 2) ? 1 * MiB << below(c, 4) : 0;
    int iops = one_in(c, 2) ? 20 << below(c, 4) : 0;

    note(c, "lane %d: limits %d %d", n, bps, iops);
    throttle(c->m, n, bps, iops);
    some_load(c, 2);
    note(c, "lane %d: no limits", n);
    throttle(c->m, n, 0, 0);
}

/* A machine that has stopped is at rest: memory and disks stand still */
static void stop_cont(Campaign *c)
{
    Machine *m = c->m;
    uint8_t *memory[KINDS], *image[HBA_MAX_LANES];
    int kind, n, i;

    note(c, "stop");
    qmp(c, "{ 'execute': 'stop' }");
    for (kind = 0; kind < KINDS; kind++) {
        memory[kind] = g_malloc(m->region[kind].size);
        read_in_pieces(m->qts, m->region[kind].base, memory[kind],
                       m->region[kind].size);
    }
    for (n = 0; n < c->hba->lanes; n++) {
        image[n] = image_contents(m, n);
    }
    for (i = below(c, 30); i > 0; i--) {
        g_assert_false(is_running(c));
    }
    for (kind = 0; kind < KINDS; kind++) {
        const Region *r = &m->region[kind];
        g_autofree uint8_t *now = g_malloc(r->size);

        read_in_pieces(m->qts, r->base, now, r->size);
        assert_same("memory of a machine at rest", r->base, now, memory[kind],
                    r->size);
        g_free(memory[kind]);
    }
    for (n = 0; n < c->hba->lanes; n++) {
        g_autofree uint8_t *now = image_contents(m, n);

        assert_same("disk of a machine at rest", 0, now, image[n],
                    m->disk_size);
        g_free(image[n]);
    }
    note(c, "cont");
    qmp(c, "{ 'execute': 'cont' }");
}

static void migrate(Campaign *c)
{
    note(c, "migrate");
    machine_migrate(c->m);
    c->hba->migrated(c->m);
    begin_with_nodes(c);
}

static void reset(Campaign *c)
{
    /* Disks tell so, once */
    c->may_fail = true;
    note(c, "reset");
    machine_reset(c->m);
    forget_all(c);
    c->hba->stop(c->m);
    c->hba->start(c->m);
}

static bool has_block_jobs(Campaign *c)
{
    QDict *answer = qtest_qmp(c->m->qts, "{ 'execute': 'query-block-jobs' }");
    bool empty = qlist_empty(qdict_get_qlist(answer, "return"));

    qobject_unref(answer);
    return !empty;
}

static bool job_is_ready(Campaign *c)
{
    QDict *answer = qtest_qmp(c->m->qts, "{ 'execute': 'query-block-jobs' }");
    QDict *job = qobject_to(QDict,
                            qlist_peek(qdict_get_qlist(answer, "return")));
    bool ready;

    g_assert_nonnull(job);
    ready = qdict_get_bool(job, "ready");
    qobject_unref(answer);
    return ready;
}

/* Let a job become ready, complete it, and wait for its end: all under load */
static void complete_job(Campaign *c)
{
    int64_t deadline = patience_ends();

    while (!job_is_ready(c)) {
        poll_some(c);
        wait_before_poll(deadline, "job to be ready");
    }
    poll_some(c);
    note(c, "complete");
    qmp(c, "{ 'execute': 'block-job-complete', "
        "'arguments': { 'device': 'job' } }");
    while (has_block_jobs(c)) {
        poll_some(c);
        wait_before_poll(deadline, "end of job");
    }
}

static void del_node(Campaign *c, const char *node)
{
    qmp(c, "{ 'execute': 'blockdev-del', 'arguments': { 'node-name': %s } }",
        node);
}

/* Writes go to a new image until they are committed to the old one */
static void snapshot(Campaign *c)
{
    int n = below(c, c->hba->lanes);
    g_autofree char *dir = g_dir_make_tmp("dma-faults-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "overlay", NULL);

    note(c, "lane %d: snapshot", n);
    qmp(c, "{ 'execute': 'blockdev-snapshot-sync', 'arguments': { "
        "'node-name': %s, 'snapshot-file': %s, 'format': 'qcow2', "
        "'snapshot-node-name': 'overlay' } }", c->lane[n].node, path);
    some_load(c, 1 + below(c, 4));
    note(c, "lane %d: commit", n);
    qmp(c, "{ 'execute': 'block-commit', 'arguments': { 'job-id': 'job', "
        "'device': 'overlay' } }");
    complete_job(c);
    finish_all(c);
    unlink(path);
    rmdir(dir);
}

/* Go on with another image, which has the same contents */
static void mirror(Campaign *c)
{
    Machine *m = c->m;
    int n = below(c, c->hba->lanes);
    Lane *lane = &c->lane[n];
    g_autofree char *zeroes = g_malloc0(m->disk_size);
    int fd = anonymous_file(zeroes, m->disk_size);
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", getpid(), fd);
    g_autofree char *node = g_strdup_printf("drive%d-%d", n,
                                            lane->generation + 1);
    g_autofree char *file = g_strdup_printf("file%d-%d", n,
                                            lane->generation + 1);

    note(c, "lane %d: mirror", n);
    qmp(c, "{ 'execute': 'blockdev-add', 'arguments': { 'driver': 'file', "
        "'node-name': %s, 'filename': %s, 'aio': %s, 'cache': { "
        "'direct': %i } } }", file, path, c->aio,
        strcmp(c->aio, "threads") != 0);
    qmp(c, "{ 'execute': 'blockdev-add', 'arguments': { 'driver': 'raw', "
        "'node-name': %s, 'file': { 'driver': 'blkdebug', 'image': %s } } }",
        node, file);
    qmp(c, "{ 'execute': 'blockdev-mirror', 'arguments': { 'job-id': 'job', "
        "'device': %s, 'target': %s, 'sync': 'full', 'copy-mode': %s } }",
        lane->node, node, one_in(c, 2) ? "background" : "write-blocking");
    complete_job(c);
    finish_all(c);
    del_node(c, lane->node);
    del_node(c, lane->file);
    close(m->image_fd[n]);
    m->image_fd[n] = fd;
    lane->generation++;
    pstrcpy(lane->node, sizeof(lane->node), node);
    pstrcpy(lane->file, sizeof(lane->file), file);
}

static bool has_tray(const Campaign *c)
{
    return c->hba->cd;
}

/* Somebody pulls the CD out, and puts it in again */
static void eject(Campaign *c)
{
    int n = below(c, c->hba->lanes);
    g_autofree char *id = disk_id(n);

    c->may_fail = true;
    note(c, "lane %d: eject", n);
    qmp(c, "{ 'execute': 'blockdev-open-tray', 'arguments': { 'id': %s, "
        "'force': true } }", id);
    poll_some(c);
    qmp(c, "{ 'execute': 'blockdev-remove-medium', 'arguments': { "
        "'id': %s } }", id);
    poll_some(c);
    qmp(c, "{ 'execute': 'blockdev-insert-medium', 'arguments': { 'id': %s, "
        "'node-name': %s } }", id, c->lane[n].node);
    poll_some(c);
    qmp(c, "{ 'execute': 'blockdev-close-tray', 'arguments': { 'id': %s } }",
        id);
}

static bool is_unpluggable(const Campaign *c)
{
    return c->hba->unpluggable;
}

static void replug(Campaign *c, int n)
{
    g_autofree char *disk = g_strdup_printf(c->hba->disk, n);
    g_autofree char *id = disk_id(n);
    g_auto(GStrv) part = g_strsplit(disk, ",", -1);
    QDict *args = qdict_new();
    int i;

    for (i = 1; part[i]; i++) {
        char *value = strchr(part[i], '=');

        *value++ = '\0';
        if (!strcmp(part[i], "scsi-id")) {
            qdict_put_int(args, part[i], n);
        } else {
            qdict_put_str(args, part[i], value);
        }
    }
    qdict_put_str(args, "driver", part[0]);
    qdict_put_str(args, "id", id);
    qdict_put_str(args, "drive", c->lane[n].node);
    if (c->stops) {
        qdict_put_str(args, "rerror", "stop");
        qdict_put_str(args, "werror", "stop");
    }
    note(c, "lane %d: plug", n);
    qmp(c, "{ 'execute': 'device_add', 'arguments': %p }", QOBJECT(args));
}

static bool has_threads(const Campaign *c)
{
    return !strcmp(c->hba->name, "virtio-scsi");
}

static void pull_out(Campaign *c, const char *id)
{
    if (has_threads(c) && !getenv("DMA_FAULTS")) {
        /*
         * Once in some hundred times, virtio-scsi's IOThread has found the disk
         * that goes, and crashes in scsi_req_alloc(): too rare to be a test.
         */
        finish_all(c);
    }
    qtest_qmp_device_del_send(c->m->qts, id);
    if (c->hba->abort) {
        /* Nothing tells a driver that its target is gone, but a timeout */
        c->hba->abort(c->m);
        forget_all(c);
        c->hba->start(c->m);
    }
    finish_all(c);
    /* The disk stays until its controller has done with the last command */
    qtest_qmp_eventwait(c->m->qts, "DEVICE_DELETED");
}

/* A disk is unplugged while it works, and another one with its data plugged */
static void unplug(Campaign *c)
{
    int n = below(c, c->hba->lanes);
    g_autofree char *id = disk_id(n);

    c->may_fail = true;
    if (!c->lane[n].busy) {
        submit(c, n);
    }
    note(c, "lane %d: unplug", n);
    pull_out(c, id);
    replug(c, n);
}

/* Between its two users the disk's node goes to another thread, and back */
static void move_thread(Campaign *c)
{
    static const char *const threads[] = { "thread0", "thread1" };
    int n = below(c, c->hba->lanes);
    g_autofree char *id = disk_id(n);

    c->may_fail = true;
    note(c, "lane %d: unplug, and move", n);
    pull_out(c, id);
    qmp(c, "{ 'execute': 'x-blockdev-set-iothread', 'arguments': { "
        "'node-name': %s, 'iothread': %s } }", c->lane[n].node,
        threads[below(c, 2)]);
    replug(c, n);
}

/* One lane holds all bounce buffers there are, the other ones want some, too */
static bool has_pool(const Campaign *c)
{
    return c->hba->qdev && c->hba->lanes > 1;
}

static void exhaust_pool(Campaign *c)
{
    Machine *m = c->m;
    g_autofree char *list = NULL;
    Lane *lane = &c->lane[0];
    uint32_t sector = c->hba->cd ? CD_SECTOR : SECTOR;
    uint32_t ram = RAM_OF_A_LANE;
    int i;

    finish_all(c);
    blkdebug(m, 0, "break read_aio A");
    note(c, "hold the pool");
    request_init(m, &lane->req, READ, 0, below(c, 64) * sector, 0, "m4096@0");
    c->hba->submit(m, 0, &lane->req);
    lane->busy = true;
    c->requests++;
    for (i = 0; i < 10; i++) {
        g_assert_cmpint(hba_poll(m, c->hba, 0), ==, IN_FLIGHT);
    }
    list = g_strdup_printf("r100@%u+m%u@4096+r2@%u", ram, 2 * sector - 102,
                           ram + 200);
    request_init(m, &c->lane[1].req, c->hba->cd || one_in(c, 2) ? READ : WRITE,
                 1, below(c, 64) * sector, 0, list);
    c->hba->submit(m, 1, &c->lane[1].req);
    c->lane[1].busy = true;
    c->requests++;
    for (i = 0; i < 10 && c->lane[1].busy; i++) {
        Progress progress = hba_poll(m, c->hba, 1);

        if (progress != IN_FLIGHT) {
            ended(c, 1, progress);
        }
    }
    blkdebug(m, 0, "resume A");
    if (one_in(c, 2)) {
        stop_cont(c);
    }
}

/* Faults of the host's kernel and memory, which the library makes */

static bool has_engine(const Campaign *c)
{
    return c->control && strcmp(c->aio, "threads");
}

static bool has_library(const Campaign *c)
{
    return c->control;
}

static void let_fail(Campaign *c, DmaFaultsKind kind, int one_in)
{
    note(c, "%s: one in %d", inject_name[kind], one_in);
    qatomic_set(&c->control->kind[kind].left, UINT32_MAX);
    qatomic_store_release(&c->control->kind[kind].one_in, one_in);
}

static void let_all_succeed(Campaign *c)
{
    int kind;

    for (kind = 0; kind < INJECT_KINDS; kind++) {
        qatomic_store_release(&c->control->kind[kind].one_in, 0);
    }
    note(c, "all succeed");
}

/* Load, while what let_fail() was told fails; and at times until all ends */
static void load_that_fails(Campaign *c)
{
    some_load(c, 4 + below(c, 12));
    if (one_in(c, 2)) {
        finish_all(c);
    }
    let_all_succeed(c);
}

/*
 * Of calls whose failure is a request's.  A machine that stops at errors begins
 * the request anew, all of its parts: it must come to an end some time.
 */
static int error_rate(Campaign *c)
{
    return c->stops ? 16 + below(c, 16) : 2 + below(c, 6);
}

/*
 * EAGAIN, EINTR and short submissions are QEMU's to repeat, as is any error of
 * io_uring_submit(), where nothing has been taken from the ring.  Other errors
 * of io_submit() are those of a request.  EINVAL is one that ide_dma_cb()
 * reports whatever rerror and werror say.
 */
static void refuse_submissions(Campaign *c)
{
    bool native = !strcmp(c->aio, "native");

    let_fail(c, INJECT_SUBMIT_EAGAIN, 2 + below(c, 3));
    let_fail(c, INJECT_SUBMIT_SHORT, 1 + below(c, 2));
    if (!native) {
        let_fail(c, INJECT_SUBMIT_EINTR, 2 + below(c, 4));
        let_fail(c, INJECT_SUBMIT_ENOMEM, 2 + below(c, 4));
    } else if (one_in(c, 2)) {
        c->may_fail = !c->stops;
        let_fail(c, INJECT_SUBMIT_ENOMEM, error_rate(c));
    } else if (one_in(c, 2)) {
        c->may_fail = true;
        let_fail(c, INJECT_SUBMIT_EINVAL, error_rate(c));
    }
    load_that_fails(c);
}

/*
 * Some kinds at a time, or all: a request that fails early never comes to the
 * others.  Bounce buffers are kept, so there are none only as long as each of
 * them is refused.
 */
static void refuse_memory(Campaign *c)
{
    bool all = !c->stops && one_in(c, 2);
    int kind;

    c->may_fail = !c->stops;
    for (kind = INJECT_TRY_MALLOC; kind <= INJECT_BOUNCE; kind++) {
        if (one_in(c, 2)) {
            let_fail(c, kind, all ? 1 : kind == INJECT_BOUNCE ? 2 :
                              error_rate(c));
        }
    }
    load_that_fails(c);
}

static const Fault faults[] = {
    { "read-error", always, read_error },
    { "write-error", can_write, write_error },
    { "read-eagain", always, read_eagain },
    { "disk-full", can_write, disk_full },
    { "short-image", always, short_image, .idle = true },
    { "throttle", always, change_limits },
    { "stop-cont", always, stop_cont },
    { "migrate", always, migrate },
    { "reset", always, reset },
    { "snapshot", can_write, snapshot },
    { "mirror", can_write, mirror },
    { "eject", has_tray, eject },
    { "unplug", is_unpluggable, unplug },
    { "move-thread", has_threads, move_thread },
    { "pool", has_pool, exhaust_pool },
    { "submit", has_engine, refuse_submissions, .injected = true },
    { "memory", has_library, refuse_memory, .injected = true },
};

/* Machines */

static const char *choose_aio(Campaign *c)
{
    static const char *const aio[] = { "io_uring", "native", "threads" };

    /* Threads submit nothing */
    return aio[below(c, ARRAY_SIZE(aio) - c->only_injected)];
}

static bool aio_works(const char *aio)
{
    g_autofree char *zeroes = g_malloc0(4 * KiB);
    int fd = anonymous_file(zeroes, 4 * KiB);
    g_autofree char *args = g_strdup_printf("-machine none");
    QTestState *qts = qtest_init(args);
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", getpid(), fd);
    QDict *answer = qtest_qmp(
        qts, "{ 'execute': 'blockdev-add', 'arguments': { 'driver': 'file', "
        "'filename': %s, 'node-name': 'probe', 'aio': %s, "
        "'cache': { 'direct': true } } }", path, aio);
    bool works = qdict_haskey(answer, "return");

    qobject_unref(answer);
    qtest_quit(qts);
    close(fd);
    return works;
}

static void machine_begin(Campaign *c)
{
    static const int pools[] = { 0, 512, 4096, 65536 };
    static const int delays[] = { 0, 200000, 2000000 };
    int delay = delays[below(c, ARRAY_SIZE(delays))];
    int pool = pools[below(c, ARRAY_SIZE(pools))];
    g_autofree char *machine = NULL;
    g_autofree char *drive = NULL;
    g_autofree char *file = NULL;

    c->aio = choose_aio(c);
    c->fresh = true;
    if (strcmp(c->aio, "threads") && !aio_works(c->aio)) {
        c->aio = "threads";
    }
    c->stops = !c->hba->cd && one_in(c, 3);
    if (c->hba->qdev) {
        machine = g_strdup_printf("-global %s.x-max-bounce-buffer-size=%d",
                                  c->hba->qdev, pool);
    }
    if (delay) {
        drive = g_strdup_printf(",file.inject-error.0.event=none,"
                                "file.inject-error.0.errno=0,"
                                "file.inject-error.0.delay-ns=%d", delay);
    }
    file = g_strdup_printf(",aio=%s%s", c->aio, strcmp(c->aio, "threads") ?
                           ",cache.direct=on" : "");
    c->setup = hba_setup(c->hba, c->stops ? ",rerror=stop,werror=stop" : NULL,
                         drive, file, machine);
    note(c, "machine: aio %s, pool %d, delay %d ns, stops %d", c->aio, pool,
         delay, c->stops);
    c->m = test_begin(&c->setup);
    begin_with_nodes(c);
    c->hba->start(c->m);
    hba_clear_attention(c->m, c->hba);
}

static int count_descriptors(Campaign *c)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd",
                                            qtest_pid(c->m->qts));
    GDir *dir = g_dir_open(path, 0, NULL);
    int count = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        count++;
    }
    g_dir_close(dir);
    return count;
}

/* With all bounce buffers free, a request that they suffice for is one part */
static void assert_pool_is_free(Campaign *c)
{
    g_autofree char *after = NULL;
    Request req;
    int64_t deadline = patience_ends();
    Progress progress;

    if (!c->hba->qdev || !strcmp(c->hba->name, "esp") ||
        !strstr(c->setup.machine, "x-max-bounce-buffer-size=4096")) {
        return;
    }
    dma_counters_reset(c->m->qts);
    request_init(c->m, &req, READ, 0, 0, 0, "m4096@0");
    c->hba->submit(c->m, 0, &req);
    while ((progress = hba_poll(c->m, c->hba, 0)) == IN_FLIGHT) {
        wait_before_poll(deadline, "end of request");
    }
    g_assert_cmpint(progress, ==, ENDED_WELL);
    expect_transfer(c->m, &req, req.bytes);
    request_free(&req);
    after = dma_counters(c->m->qts, "total");
    if (strstr(after, "partial-mappings") || strstr(after, "waits")) {
        fail("bounce buffers are leaked: %s", after);
    }
}

static void assert_nothing_leaked(Campaign *c)
{
    int now = count_descriptors(c);
    int64_t deadline = patience_ends();

    if (!c->descriptors) {
        c->descriptors = now;
    }
    /* What a thread has yet to close is none */
    while (now > c->descriptors + LAZY_DESCRIPTORS) {
        wait_before_poll(deadline, "descriptors to be closed");
        now = count_descriptors(c);
    }
    assert_pool_is_free(c);
}

static void check(Campaign *c)
{
    assert_everything(c->m);
    c->checks++;
}

static void machine_end(Campaign *c)
{
    assert_nothing_leaked(c);
    c->hba->stop(c->m);
    test_end(c->m);
    machine_discard();
}

static const Fault *choose_fault(Campaign *c)
{
    const Fault *wanted[ARRAY_SIZE(faults)];
    int n = 0, i;

    for (i = 0; i < ARRAY_SIZE(faults); i++) {
        const Fault *fault = &faults[i];

        if (!fault->possible(c) || (c->only_injected && !fault->injected)) {
            continue;
        }
        if (fault->inject == refuse_memory && c->fresh && one_in(c, 2)) {
            /* Now there are no buffers yet that are kept */
            return fault;
        }
        /* Migration takes so much longer than others */
        if (fault->inject != migrate || one_in(c, 4)) {
            wanted[n++] = fault;
        }
    }
    return wanted[below(c, n)];
}

static void step(Campaign *c)
{
    const Fault *fault;

    /* Once more the watchdog waits as long as for a test */
    test_begin(&c->setup);
    fault = choose_fault(c);

    if (!c->fresh) {
        poll_some(c);
    }
    c->fresh = false;
    if (fault->idle) {
        finish_all(c);
    }
    note(c, "fault: %s", fault->name);
    fault->inject(c);
    count_fault(c, fault->name);
    poll_some(c);
    all_well(c);
    check(c);
}

static void count_kind(gpointer key, gpointer value, gpointer opaque)
{
    g_string_append_printf(opaque, " fault-%s=%d", (char *)key,
                           GPOINTER_TO_INT(value));
}

static unsigned long number_of(const char *variable, unsigned long otherwise)
{
    const char *text = getenv(variable);
    unsigned long value = otherwise;

    if (text && *text) {
        g_assert_cmpint(qemu_strtoul(text, NULL, 10, &value), ==, 0);
    }
    return value;
}

/* From now on QEMU is started with the library */
static void preload(Campaign *c, const char *library, uint32_t seed)
{
    DmaFaultsControl control = { .seed = seed };
    g_autofree char *path = NULL;

    /* A library that cannot be loaded is ignored */
    g_assert_cmpint(access(library, R_OK), ==, 0);
    c->control_fd = anonymous_file(&control, sizeof(control));
    c->control = mmap(NULL, sizeof(control), PROT_READ | PROT_WRITE, MAP_SHARED,
                      c->control_fd, 0);
    g_assert(c->control != MAP_FAILED);
    path = g_strdup_printf("/proc/%d/fd/%d", getpid(), c->control_fd);
    g_setenv("DMA_FAULTS_CONTROL", path, true);
    g_setenv("LD_PRELOAD", library, true);
}

static void preload_no_more(Campaign *c)
{
    g_unsetenv("LD_PRELOAD");
    g_unsetenv("DMA_FAULTS_CONTROL");
    munmap(c->control, sizeof(*c->control));
    close(c->control_fd);
}

static void campaign(const HbaType *hba, bool only_injected)
{
    const char *log = getenv("DMA_FAULTS_LOG");
    const char *library = getenv("DMA_FAULTS_INJECT");
    unsigned long count = number_of("DMA_FAULTS", only_injected ?
                                    DEFAULT_INJECTED : DEFAULT_FAULTS);
    unsigned long seed = number_of("DMA_FAULTS_SEED", 1), done;
    Campaign c = {
        .hba = hba,
        .only_injected = only_injected,
        .rand = g_rand_new_with_seed(seed),
        .injected = g_hash_table_new(g_str_hash, g_str_equal),
        .log = log ? fopen(log, "w") : NULL,
    };
    GString *figures = g_string_new(NULL);
    uint64_t injected = 0;
    int kind;

    if (library && *library) {
        preload(&c, library, seed);
    } else if (only_injected) {
        g_test_skip("DMA_FAULTS_INJECT does not name the library");
        goto out;
    }
    for (done = 0; done < count; done++) {
        if (done % (only_injected ? INJECTED_OF_A_MACHINE :
                                    FAULTS_OF_A_MACHINE) == 0) {
            if (done) {
                machine_end(&c);
            }
            machine_begin(&c);
        }
        note(&c, "--- %lu", done);
        step(&c);
        if (done % 8 == 2) {
            assert_nothing_leaked(&c);
        }
    }
    machine_end(&c);

    g_hash_table_foreach(c.injected, count_kind, figures);
    for (kind = 0; c.control && kind < INJECT_KINDS; kind++) {
        injected += c.control->kind[kind].count;
        g_string_append_printf(figures, " injected-%s=%" PRIu64,
                               inject_name[kind], c.control->kind[kind].count);
    }
    g_test_message("campaign device=%s seed=%lu faults=%lu requests=%" PRIu64
                   " errors=%" PRIu64 " unacknowledged=%" PRIu64
                   " checks=%" PRIu64 "%s", c.hba->name, seed, count,
                   c.requests, c.errors, c.unacknowledged, c.checks,
                   figures->str);
    /* An ESP need not ask for memory that can be refused. */
    if (g_hash_table_contains(c.injected, "submit") && !injected) {
        fail("nothing was injected: is %s loaded?", library);
    }
    if (c.control) {
        preload_no_more(&c);
    }
out:
    g_string_free(figures, true);
    g_hash_table_unref(c.injected);
    g_rand_free(c.rand);
    if (c.log) {
        fclose(c.log);
    }
}

static void test_campaign(const void *data)
{
    campaign(data, false);
}

static void test_injected(const void *data)
{
    campaign(data, true);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);

    for (i = 0; i < HBA_TYPES; i++) {
        g_autofree char *path = g_strdup_printf("dma-faults/%s",
                                                hba_types[i].name);
        g_autofree char *injected = g_strdup_printf("dma-faults/injected/%s",
                                                    hba_types[i].name);

        qtest_add_data_func(path, &hba_types[i], test_campaign);
        qtest_add_data_func(injected, &hba_types[i], test_injected);
    }

    return test_run();
}
