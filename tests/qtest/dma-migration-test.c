/*
 * DMA and precopy migration: every page that a controller writes is dirty
 *
 * While a migration is under way, and after each page of RAM has been sent at
 * least once, disks are read into pages that nobody else writes.  If one of
 * them is not marked dirty, the destination still has what was there before:
 * all RAM of both is compared when the source has stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "dma-hba-util.h"

#define PAGE                    (4 * KiB)
#define RAM_REGION              (512 * KiB)

/* Pages that keep the migration from its end */
#define BALLAST                 (20 * MiB)
#define BALLAST_SIZE            (1 * MiB)
/* Bytes per second: for all of RAM, then to be at the ballast for long */
#define SLOW                    (4 * MiB)
#define SLOWER                  (64 * KiB)

/* Where RAM is: what else there is below 1 MiB is not migrated as such */
static const struct {
    uint64_t base;
    uint64_t size;
} ram[] = {
    { 0, 640 * KiB },
    { 768 * KiB, 128 * KiB },
    { 1 * MiB, 31 * MiB },
};

typedef struct MigrationTest {
    const HbaType *hba;
    const char *machine;
} MigrationTest;

/* Pages of the region; each list has its own */
static const char *const lists[] = {
    "r4096@4096",
    "r32768@16384",
    /* parts of pages, also of two */
    "r512@65636+r512@73728+r1024@81408",
    "r2@90112+r2@94208+r2@98304+r506@102400",
    /* without a bounce pool, a unit at a time */
    "r100@110592+m412@0",
    "r4096@118784+m1024@0+r3072@126976",
    /* what is still under way at the end */
    "r65536@196608",
};

static const char *const cd_lists[] = {
    "r4096@4096",
    "r32768@16384",
    "r2048@65636+r2048@73728+r4096@81408",
    "r2@90112+r2@94208+r2@98304+r2042@102400",
    "r100@110592+m1948@0",
    "r4096@118784+m1024@0+r3072@126976",
    "r65536@196608",
};

/* Without MMIO: the same pages */
static const char *const ram_lists[] = {
    "r4096@4096",
    "r32768@16384",
    "r512@65636+r512@73728+r1024@81408",
    "r2@90112+r2@94208+r2@98304+r506@102400",
    "r100@110592+r412@114688",
    "r4096@118784+r4096@126976",
    "r65536@196608",
};

#define REQUESTS                ARRAY_SIZE(lists)

QEMU_BUILD_BUG_ON(ARRAY_SIZE(cd_lists) != REQUESTS ||
                  ARRAY_SIZE(ram_lists) != REQUESTS);

static void set_parameters(QTestState *qts, uint64_t bandwidth, int downtime)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters', "
                             "'arguments': { 'max-bandwidth': %" PRIu64 ", "
                             "'downtime-limit': %d } }", bandwidth, downtime);
}

/* Times that what is dirty has been looked up; fails if it was the last one */
static int64_t dirty_syncs(QTestState *qts)
{
    QDict *info = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-migrate' }");
    const char *status = qdict_get_try_str(info, "status") ?: "none";
    int64_t count = 0;

    if (qdict_haskey(info, "ram")) {
        g_assert_cmpstr(status, ==, "active");
        count = qdict_get_int(qdict_get_qdict(info, "ram"),
                              "dirty-sync-count");
    } else {
        g_assert_cmpstr(status, !=, "completed");
        g_assert_cmpstr(status, !=, "failed");
    }
    qobject_unref(info);
    return count;
}

static void dirty_ballast(QTestState *qts)
{
    static uint8_t pattern;

    qtest_memset(qts, BALLAST, ++pattern | 1, BALLAST_SIZE);
}

static void finish(Machine *m, const HbaType *hba, int lane, Request *req,
                   bool migrating)
{
    int64_t deadline = patience_ends();
    Progress progress;

    while ((progress = hba_poll(m, hba, lane)) == IN_FLIGHT) {
        if (migrating) {
            dirty_ballast(m->qts);
        }
        wait_before_poll(deadline, "end of command");
    }
    g_assert_cmpint(progress, ==, ENDED_WELL);
    expect_transfer(m, req, req->bytes);
}

static void assert_same_ram(QTestState *from, QTestState *to)
{
    g_autofree uint8_t *a = g_malloc(1 * MiB);
    g_autofree uint8_t *b = g_malloc(1 * MiB);
    uint64_t offset, len;
    int i;

    for (i = 0; i < ARRAY_SIZE(ram); i++) {
        for (offset = 0; offset < ram[i].size; offset += len) {
            uint64_t addr = ram[i].base + offset;

            len = MIN(ram[i].size - offset, 1 * MiB);
            read_in_pieces(from, addr, a, len);
            read_in_pieces(to, addr, b, len);
            assert_same("RAM of the destination", addr, b, a, len);
        }
    }
}

static void test_dirty(const void *data)
{
    const MigrationTest *t = data;
    const HbaType *hba = t->hba;
    Setup setup = hba_setup(hba, NULL, NULL, NULL, t->machine);
    const char *const *list = !hba->max_mmio ? ram_lists :
                              hba->cd ? cd_lists : lists;
    int64_t deadline = patience_ends();
    Request req[REQUESTS];
    Migration g;
    Machine *m;
    int i;

    setup.ram_size = RAM_REGION;
    m = test_begin(&setup);
    hba->start(m);
    hba_clear_attention(m, hba);
    for (i = 0; i < REQUESTS; i++) {
        request_init(m, &req[i], READ, i % hba->lanes, i * 64 * KiB, 0,
                     list[i]);
    }

    set_parameters(m->qts, SLOW, 1);
    machine_migrate_begin(m, &g);
    while (dirty_syncs(m->qts) < 2) {
        dirty_ballast(m->qts);
        wait_before_poll(deadline, "first pass");
    }
    set_parameters(m->qts, SLOWER, 1);
    for (i = 0; i < REQUESTS - 1; i++) {
        dirty_ballast(m->qts);
        hba->submit(m, i % hba->lanes, &req[i]);
        finish(m, hba, i % hba->lanes, &req[i], true);
    }
    dirty_syncs(m->qts);
    hba->submit(m, i % hba->lanes, &req[i]);
    set_parameters(m->qts, 1 * GiB, 30000);
    machine_migrate_finish(m, &g);
    hba->migrated(m);

    assert_same_ram(g.from, g.to);
    machine_migrate_end(&g);
    finish(m, hba, i % hba->lanes, &req[i], false);
    for (i = 0; i < REQUESTS; i++) {
        request_free(&req[i]);
    }
    hba->stop(m);
    test_end(m);
    machine_discard();
}

static void add_test(const HbaType *hba, const char *variant,
                     const char *machine)
{
    MigrationTest *t = g_new(MigrationTest, 1);
    g_autofree char *path = g_strdup_printf("dma-migration/dirty/%s/%s",
                                            hba->name, variant);

    *t = (MigrationTest) { hba, g_intern_string(machine) };
    qtest_add_data_func_full(path, t, test_dirty, g_free);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);

    for (i = 0; i < HBA_TYPES; i++) {
        const HbaType *hba = &hba_types[i];
        g_autofree char *no_pool = hba->qdev ?
            g_strdup_printf("-global %s.x-max-bounce-buffer-size=0",
                            hba->qdev) : NULL;

        add_test(hba, "direct", no_pool ?: "");
        if (!strcmp(hba->name, "lsi") || !strcmp(hba->name, "esp")) {
            g_autofree char *off = g_strdup_printf("-global %s.direct-dma=off",
                                                   hba->qdev);

            add_test(hba, "buffered", off);
        }
    }

    return test_run();
}
