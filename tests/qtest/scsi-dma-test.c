/*
 * SCSI DMA: what only a controller can show that takes lists of any length,
 * runs many commands at once, and can be unplugged
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "hw/usb/uhci-regs.h"
#include "libqos/pci-pc.h"
#include "qobject/qdict.h"
#include "scsi-test-util.h"

/* SPC and SBC */
#define SCSI_REQUEST_SENSE      0x03
#define SCSI_INQUIRY            0x12
#define SCSI_WRITE_SAME_10      0x41
#define SCSI_UNMAP              0x42
#define SCSI_REPORT_LUNS        0xa0
#define SENSE_KEY               2
#define   ABORTED_COMMAND       0x0b

#define MEGASAS_SETUP(...) { \
        .machine = "-device megasas,id=hba,addr=5 " \
                   "-device scsi-hd,bus=hba.0,scsi-id=0,drive=drive0," \
                   "id=disk0 " \
                   "-device scsi-hd,bus=hba.0,scsi-id=1,drive=drive1," \
                   "id=disk1", \
        .disks = 2, \
        .hba_devfn = QPCI_DEVFN(MEGASAS_SLOT, 0), \
        .hba_bar = MEGASAS_PORT_BAR, \
        __VA_ARGS__ \
    }

static const Setup megasas = MEGASAS_SETUP();

/* blkdebug: each access to sector 22 fails, or takes a while */
#define BAD_SECTOR      22
#define INJECT          ",file.inject-error.0."
#define BAD_DISK        INJECT "event=none" INJECT "sector=22" INJECT "errno=5"
#define SLOW_DISK       INJECT "event=none" INJECT "sector=22" \
                        INJECT "errno=0" INJECT "delay-ns=20000000"

static const Setup megasas_bad = MEGASAS_SETUP(.drive[0] = BAD_DISK);
static const Setup megasas_slow = MEGASAS_SETUP(.drive[0] = SLOW_DISK);

/* One command at a time to each disk */
static Request disk_req[2];

/*
 * Start a command: @blocks of the disk from @lba on, or if that is 0 as many
 * as @list has room for.
 */
static void submit_blocks(Machine *m, int disk, Direction dir, uint32_t lba,
                          uint32_t blocks, const char *list)
{
    Request *req = &disk_req[disk];
    uint8_t frame[MFI_IO_SGL + MFI_MAX_SGE * MFI_SGE_SIZE] = {
        [MFI_FRAME_CMD] = dir == READ ? MFI_CMD_LD_READ : MFI_CMD_LD_WRITE,
        [MFI_FRAME_CMD_STATUS] = MFI_STAT_PENDING,
        [MFI_FRAME_TARGET_ID] = disk,
    };
    g_autofree SGEntry *entries = NULL;
    uint32_t len;

    request_free(req);
    request_init(m, req, dir, disk, lba * SECTOR, blocks * SECTOR, list);
    entries = sg_entries(m, req);

    stq_le_p(&frame[MFI_FRAME_CONTEXT], disk);
    stl_le_p(&frame[MFI_FRAME_DATA_LEN], req->bytes / SECTOR);
    stl_le_p(&frame[MFI_IO_LBA_LOW], lba);
    len = megasas_put_sgl(frame, MFI_IO_SGL, entries, req->list->len);
    megasas_post(m, MFI_FRAME(disk), frame, len);
}

static void submit(Machine *m, int disk, Direction dir, uint32_t lba,
                   const char *list)
{
    submit_blocks(m, disk, dir, lba, 0, list);
}

static void assert_stays_pending(Machine *m, int disk)
{
    int i;

    for (i = 0; i < 20; i++) {
        g_assert_cmphex(megasas_frame_readb(m, MFI_FRAME(disk),
                                            MFI_FRAME_CMD_STATUS), ==,
                        MFI_STAT_PENDING);
    }
}

static void finish(Machine *m, int disk)
{
    Request *req = &disk_req[disk];

    g_assert_cmphex(megasas_wait(m, MFI_FRAME(disk)), ==, MFI_STAT_OK);
    g_assert_cmphex(megasas_frame_readb(m, MFI_FRAME(disk),
                                        MFI_FRAME_SCSI_STATUS), ==, SCSI_GOOD);
    expect_transfer(m, req, req->bytes);
}

/* The controller and the whole bounce pool serve the next command as ever */
static void assert_usable(Machine *m, int disk, uint32_t lba)
{
    assert_everything(m);
    submit(m, disk, WRITE, lba, "m8192");
    finish(m, disk);
    submit(m, disk, READ, lba + 1, "m7680");
    finish(m, disk);
}

typedef struct ScsiTest {
    Direction dir;
    const char *list;
} ScsiTest;

static void add_tests(const char *name, const char *const *list,
                      GTestDataFunc fn)
{
    Direction dir;

    for (; *list; list++) {
        for (dir = READ; dir <= WRITE; dir++) {
            ScsiTest *t = g_new(ScsiTest, 1);
            g_autofree char *path = g_strdup_printf("scsi-dma/%s/%s/%s", name,
                                                    dir_name(dir), *list);

            t->dir = dir;
            t->list = *list;
            qtest_add_data_func_full(path, t, fn, g_free);
        }
    }
}

static void test_list(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas);

    submit(m, 0, t->dir, 7, t->list);
    finish(m, 0);
    assert_usable(m, 0, 100);
    test_end(m);
}

/* A list that has room for more than the command: nobody touches the rest. */
static void test_surplus(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas);

    submit_blocks(m, 0, t->dir, 7, 2, t->list);
    finish(m, 0);
    assert_usable(m, 0, 100);
    test_end(m);
}

static void test_error(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas_bad);
    Request *req = &disk_req[0];
    size_t done;

    submit(m, 0, t->dir, BAD_SECTOR, t->list);
    g_assert_cmphex(megasas_wait(m, MFI_FRAME(0)), ==,
                    MFI_STAT_SCSI_DONE_WITH_ERROR);
    g_assert_cmphex(megasas_frame_readb(m, MFI_FRAME(0),
                                        MFI_FRAME_SCSI_STATUS), ==,
                    SCSI_CHECK_CONDITION);
    done = expect_partial_transfer(m, req);
    g_assert_cmpuint(done, ==, 0);
    assert_usable(m, 0, 100);
    test_end(m);
}

/* Disk 0 holds the pool, disk 1 waits for it */

#define WHOLE_POOL      "m4096@0"

static const char *const waiting_lists[] = {
    "m512@4096", "m101@5001+r411", "r511+m1@5001", "m4096@4096", NULL
};

static void hold_pool(Machine *m, const char *list)
{
    blkdebug(m, 0, "break read_aio A");
    submit(m, 0, READ, 7, list);
    assert_stays_pending(m, 0);
}

static void release_pool(Machine *m)
{
    blkdebug(m, 0, "resume A");
    finish(m, 0);
}

static void test_compete(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas);

    hold_pool(m, WHOLE_POOL);
    submit(m, 1, t->dir, 30, t->list);
    assert_stays_pending(m, 1);
    release_pool(m);
    finish(m, 1);
    assert_usable(m, 0, 100);
    assert_usable(m, 1, 100);
    test_end(m);
}

static void test_abort_waiting(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas);

    hold_pool(m, WHOLE_POOL);
    submit(m, 1, t->dir, 30, t->list);
    assert_stays_pending(m, 1);
    megasas_abort(m, MFI_FRAME(1), 1);
    g_assert_cmpuint(expect_partial_transfer(m, &disk_req[1]), ==, 0);
    assert_everything(m);
    assert_stays_pending(m, 0);
    release_pool(m);
    assert_usable(m, 0, 100);
    assert_usable(m, 1, 100);
    test_end(m);
}

static const char *const in_flight_lists[] = {
    "r512", "m512", "r101+m411", "r101+m8091", NULL
};

static void test_abort_in_flight(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas_slow);

    submit(m, 0, t->dir, BAD_SECTOR, t->list);
    megasas_abort(m, MFI_FRAME(0), 0);
    expect_partial_transfer(m, &disk_req[0]);
    /* This takes so long that a stray transfer would come to light */
    assert_usable(m, 0, BAD_SECTOR);
    test_end(m);
}

/* A reset of the controller aborts one command that runs, one that waits */
static void test_reset(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas_slow);

    submit(m, 0, t->dir, BAD_SECTOR, WHOLE_POOL);
    submit(m, 1, t->dir, 30, t->list);
    qpci_io_writel(m->hba, m->hba_bar, MFI_IDB, MFI_IDB_READY);
    region_accept(m, TABLE, MFI_FRAME(0) + MFI_FRAME_CMD_STATUS, 2);
    region_accept(m, TABLE, MFI_FRAME(1) + MFI_FRAME_CMD_STATUS, 2);
    expect_partial_transfer(m, &disk_req[0]);
    expect_partial_transfer(m, &disk_req[1]);
    assert_usable(m, 0, BAD_SECTOR);
    assert_usable(m, 1, 100);
    test_end(m);
}

static void test_system_reset(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas_slow);

    submit(m, 0, t->dir, BAD_SECTOR, WHOLE_POOL);
    submit(m, 1, t->dir, 30, t->list);
    machine_reset(m);
    region_accept(m, TABLE, MFI_FRAME(0) + MFI_FRAME_CMD_STATUS, 2);
    region_accept(m, TABLE, MFI_FRAME(1) + MFI_FRAME_CMD_STATUS, 2);
    expect_partial_transfer(m, &disk_req[0]);
    expect_partial_transfer(m, &disk_req[1]);
    assert_usable(m, 0, BAD_SECTOR);
    assert_usable(m, 1, 100);
    test_end(m);
}

/* Unplug the disk whose command waits for the pool that the other holds */
static void test_unplug_waiting(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas_slow);

    submit(m, 0, READ, BAD_SECTOR, WHOLE_POOL);
    submit(m, 1, t->dir, 30, t->list);
    qtest_qmp_device_del(m->qts, "disk1");
    megasas_wait(m, MFI_FRAME(1));
    finish(m, 0);
    expect_partial_transfer(m, &disk_req[1]);
    assert_usable(m, 0, BAD_SECTOR);
    test_end(m);
    machine_discard();
}

/* Unplug the disk whose command holds the pool: the other goes on */
static void test_unplug_in_flight(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas_slow);

    submit(m, 0, t->dir, BAD_SECTOR, WHOLE_POOL);
    submit(m, 1, t->dir, 30, t->list);
    qtest_qmp_device_del(m->qts, "disk0");
    megasas_wait(m, MFI_FRAME(0));
    finish(m, 1);
    expect_partial_transfer(m, &disk_req[0]);
    assert_usable(m, 1, 100);
    test_end(m);
    machine_discard();
}

/* Unplug the controller, which has a command in flight and one that waits */
static void test_unplug_controller(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas_slow);

    submit(m, 0, t->dir, BAD_SECTOR, WHOLE_POOL);
    submit(m, 1, t->dir, 30, t->list);
    qpci_unplug_acpi_device_test(m->qts, "hba", MEGASAS_SLOT);
    region_accept(m, TABLE, MFI_FRAME(0) + MFI_FRAME_CMD_STATUS, 2);
    region_accept(m, TABLE, MFI_FRAME(1) + MFI_FRAME_CMD_STATUS, 2);
    expect_partial_transfer(m, &disk_req[0]);
    expect_partial_transfer(m, &disk_req[1]);
    test_end(m);
    machine_discard();
}

/*
 * IOThreads: two virtio-scsi controllers, each with a thread and a disk
 *
 * The memory that they use is system memory, they share its bounce pool.
 * Registers are out of an IOThread's reach, but holes are bounced as well.
 */

#define VIRTIO_SLOT(n)          (6 + (n))
/* SBC */
#define SCSI_READ_10            0x28
#define SCSI_WRITE_10           0x2a

static const Setup virtio_scsi = {
    .machine = "-object iothread,id=thread0 "
               "-device virtio-scsi-pci,id=hba0,addr=6,iothread=thread0 "
               "-device scsi-hd,bus=hba0.0,drive=drive0,id=disk0 "
               "-object iothread,id=thread1 "
               "-device virtio-scsi-pci,id=hba1,addr=7,iothread=thread1 "
               "-device scsi-hd,bus=hba1.0,drive=drive1,id=disk1",
    .disks = 2,
    .hba_devfn = QPCI_DEVFN(VIRTIO_SLOT(0), 0),
};

/* Start the first @count controllers of the machine */
static void virtio_scsi_start_all(Machine *m, VirtioScsi *v, int count,
                                  QGuestAllocator *alloc)
{
    int n;

    alloc_init(alloc, 0, VIRTIO_MEMORY_BEGIN, VIRTIO_MEMORY_END, 4 * KiB);
    for (n = 0; n < count; n++) {
        virtio_scsi_start(m, &v[n], VIRTIO_SLOT(n), alloc);
    }
}

/* A request of disk @disk, which is @v's, in the terms of submit_blocks() */
static void virtio_scsi_submit_request(Machine *m, VirtioScsi *v, Request *req,
                                       int disk, Direction dir, uint32_t lba,
                                       uint32_t blocks, const char *list)
{
    uint8_t cdb[10] = { dir == READ ? SCSI_READ_10 : SCSI_WRITE_10 };
    g_autofree SGEntry *entries = NULL;

    request_free(req);
    request_init(m, req, dir, disk, lba * SECTOR, blocks * SECTOR, list);
    entries = sg_entries(m, req);
    stl_be_p(&cdb[2], lba);
    stw_be_p(&cdb[7], req->bytes / SECTOR);
    virtio_scsi_post(m, v, cdb, sizeof(cdb), dir, entries, req->list->len);
}

static void virtio_scsi_finish_request(Machine *m, VirtioScsi *v, Request *req)
{
    struct virtio_scsi_cmd_resp resp;

    virtio_scsi_wait(m, v, &resp);
    g_assert_cmphex(resp.response, ==, VIRTIO_SCSI_S_OK);
    g_assert_cmphex(resp.status, ==, SCSI_GOOD);
    expect_transfer(m, req, req->bytes);
}

/* As submit_blocks() */
static void virtio_scsi_submit_blocks(Machine *m, VirtioScsi *v, int disk,
                                      Direction dir, uint32_t lba,
                                      uint32_t blocks, const char *list)
{
    virtio_scsi_submit_request(m, v, &disk_req[disk], disk, dir, lba, blocks,
                               list);
}

static void virtio_scsi_submit(Machine *m, VirtioScsi *v, int disk,
                               Direction dir, uint32_t lba, const char *list)
{
    virtio_scsi_submit_blocks(m, v, disk, dir, lba, 0, list);
}

static void virtio_scsi_finish(Machine *m, VirtioScsi *v, int disk)
{
    virtio_scsi_finish_request(m, v, &disk_req[disk]);
}

static void test_iothreads(void)
{
    /* Both at once: each has its part of each kind of memory */
    static const struct {
        Direction dir;
        const char *list[2];
    } tests[] = {
        { READ, { "r512@0", "r512@65536" } },
        { READ, { "r1@0+r1@1+r510@2", "r1@65536+r511@65540" } },
        { READ, { "r101@0+s411@1000", "r411@65536+e101@101" } },
        { READ, { "r65536@0", "r65536@65536" } },
        { READ, { "s16384@0+s16384@32768+s16384@65536",
                  "e4096@0+r45056@65536" } },
        { WRITE, { "r512@0", "r512@65536" } },
        { WRITE, { "h512@0", "h512@512" } },
        { READ, { "h512@0", "h512@512" } },
        { WRITE, { "r101@0+h411@0", "h101@512+r411@65536" } },
        { WRITE, { "r1@0+h1@0+r510@2", "h1@512+r510@65536+h1@514" } },
        { WRITE, { "r212@0+o100+h200", "h100+o200+r212@65536" } },
        { WRITE, { "s65536@0", "r65536@65536" } },
    };
    Machine *m = test_begin(&virtio_scsi);
    QGuestAllocator alloc;
    VirtioScsi v[2];
    int i, n;

    virtio_scsi_start_all(m, v, 2, &alloc);
    for (i = 0; i < 10 * ARRAY_SIZE(tests); i++) {
        int t = i % ARRAY_SIZE(tests);

        for (n = 0; n < 2; n++) {
            virtio_scsi_submit(m, &v[n], n, tests[t].dir, 7 * i + n,
                               tests[t].list[n]);
        }
        for (n = 0; n < 2; n++) {
            virtio_scsi_finish(m, &v[n], n);
        }
        assert_everything(m);
    }
    for (n = 0; n < 2; n++) {
        virtio_scsi_stop(&v[n], &alloc);
    }
    alloc_destroy(&alloc);
    test_end(m);
    machine_discard();
}

/*
 * One disk, whose commands come in two queues, each with a thread: they share
 * the backend, and the counters of the controller and the drive.
 */
static const Setup virtio_scsi_queues = {
    .machine = "-object iothread,id=thread0 -object iothread,id=thread1 "
               "-device '{ \"driver\": \"virtio-scsi-pci\", "
               "\"id\": \"hba0\", \"addr\": \"6\", \"num_queues\": 2, "
               "\"iothread-vq-mapping\": [ { \"iothread\": \"thread0\" }, "
               "{ \"iothread\": \"thread1\" } ] }' "
               "-device '{ \"driver\": \"scsi-hd\", \"id\": \"disk0\", "
               "\"bus\": \"hba0.0\", \"drive\": \"drive0\" }'",
    .disks = 1,
    .hba_devfn = QPCI_DEVFN(VIRTIO_SLOT(0), 0),
};

static void test_iothreads_of_queues(void)
{
    static const struct {
        Direction dir;
        const char *list[2];
    } tests[] = {
        { READ, { "r512@0", "r512@65536" } },
        { READ, { "r1@0+r511@2", "r100@65536+r924@65700" } },
        { READ, { "64xr1+s448@0", "e512@0+r512@65536" } },
        { WRITE, { "r512@0", "r512@65536" } },
        { WRITE, { "r1@0+h511@0", "h512@512+r512@65536" } },
    };
    Machine *m = test_begin(&virtio_scsi_queues);
    Request req[2] = { };
    QGuestAllocator alloc;
    VirtioScsi v[2];
    uint64_t requests = 0;
    g_autofree char *count = NULL;
    g_autofree char *counters = NULL;
    int i, n;

    virtio_scsi_start_all(m, v, 1, &alloc);
    v[1] = virtio_scsi_queue(&v[0], VIRTIO_SCSI_REQUESTQ + 1, &alloc);
    dma_counters_reset(m->qts);
    for (i = 0; i < 20 * ARRAY_SIZE(tests); i++) {
        int t = i % ARRAY_SIZE(tests);

        for (n = 0; n < 2; n++) {
            virtio_scsi_submit_request(m, &v[n], &req[n], 0, tests[t].dir,
                                       7 * i % 300 + 300 * n, 0,
                                       tests[t].list[n]);
            requests++;
        }
        /* They are read while they change */
        g_free(dma_drive_counters(m->qts, "total"));
        for (n = 0; n < 2; n++) {
            virtio_scsi_finish_request(m, &v[n], &req[n]);
        }
    }
    assert_everything(m);
    count = g_strdup_printf("requests=%" PRIu64 " ", requests);
    counters = dma_counters(m->qts, "/hba0/virtio-backend");
    if (!g_str_has_prefix(counters, count)) {
        fail("not %s, but %s", count, counters);
    }
    for (n = 0; n < 2; n++) {
        request_free(&req[n]);
    }
    virtio_scsi_stop(&v[0], &alloc);
    alloc_destroy(&alloc);
    test_end(m);
    machine_discard();
}

static void wait_for_counter(Machine *m, const char *device,
                             const char *counter)
{
    int64_t deadline = patience_ends();
    bool found = false;

    while (!found) {
        g_autofree char *counters = dma_counters(m->qts, device);

        found = counters && strstr(counters, counter);
        wait_before_poll(deadline, counter);
    }
}

/*
 * A thread waits for bounce buffers that another one gives back.  The virtio
 * core has some as well, and would fail without: of the 4096 bytes that there
 * are, 1024 are for the first request twice, and then 2048 for the core's copy
 * of the second.
 */
static void test_iothreads_wait(void)
{
    Machine *m = test_begin(&virtio_scsi);
    QGuestAllocator alloc;
    VirtioScsi v[2];
    int i, n;

    virtio_scsi_start_all(m, v, 2, &alloc);
    for (i = 0; i < 3; i++) {
        dma_counters_reset(m->qts);
        /* What the drive may do in this second */
        throttle(m, 0, 0, 1);
        virtio_scsi_submit(m, &v[0], 0, READ, 7, "r512@0");
        virtio_scsi_finish(m, &v[0], 0);

        virtio_scsi_submit(m, &v[0], 0, WRITE, 7 + i, "h1024@0");
        wait_for_counter(m, "/hba0/virtio-backend", "bytes-bounced=1024");
        virtio_scsi_submit(m, &v[1], 1, WRITE, 9 + i, "h2048@1024");
        wait_for_counter(m, "/hba1/virtio-backend", "map-client-waits=1");
        qtest_clock_step(m->qts, NANOSECONDS_PER_SECOND);
        for (n = 0; n < 2; n++) {
            virtio_scsi_finish(m, &v[n], n);
        }
        throttle(m, 0, 0, 0);
    }
    for (n = 0; n < 2; n++) {
        virtio_scsi_stop(&v[n], &alloc);
    }
    alloc_destroy(&alloc);
    test_end(m);
    machine_discard();
}

/*
 * A disk is unplugged while its commands are on their way: many of them, so
 * that the thread is busy when that begins.
 */
#define UNPLUG_COMMANDS     512
#define UNPLUG_ROUNDS       20

static const Setup virtio_scsi_unplug = {
    .machine = "-object iothread,id=thread0 "
               "-device virtio-scsi-pci,id=hba0,addr=6,iothread=thread0 "
               "-device scsi-hd,bus=hba0.0,drive=drive0,id=disk0 "
               "-blockdev null-co,node-name=null,read-zeroes=on",
    .disks = 1,
    .hba_devfn = QPCI_DEVFN(VIRTIO_SLOT(0), 0),
};

/* The same command, again and again; its answer is of no interest. */
static void post_many(Machine *m, VirtioScsi *v, int target, int count)
{
    struct virtio_scsi_cmd_req cmd = { .lun = { 1, target } };
    QVirtQueue *vq = v->vq[v->requestq];
    uint16_t index = qtest_readw(m->qts, vq->avail +
                                 offsetof(struct vring_avail, idx));
    uint64_t ring = vq->avail + offsetof(struct vring_avail, ring);
    uint32_t head;
    int i;

    qtest_memwrite(m->qts, v->req_addr, &cmd, sizeof(cmd));
    qvirtqueue_reset_pool(vq);
    head = qvirtqueue_add(m->qts, vq, v->req_addr, sizeof(cmd), false, true);
    qvirtqueue_add(m->qts, vq, v->resp_addr,
                   sizeof(struct virtio_scsi_cmd_resp), true, false);
    for (i = 0; i < count; i++) {
        qtest_writew(m->qts, ring + (uint16_t)(index + i) % vq->size * 2, head);
    }
    qtest_writew(m->qts, vq->avail + offsetof(struct vring_avail, idx),
                 index + count);
    v->pci->vdev.bus->virtqueue_kick(&v->pci->vdev, vq);
}

static void test_iothreads_unplug(void)
{
    Machine *m = test_begin(&virtio_scsi_unplug);
    QGuestAllocator alloc;
    VirtioScsi v;
    int i, n;

    virtio_scsi_start_all(m, &v, 1, &alloc);
    for (i = 0; i < UNPLUG_ROUNDS; i++) {
        int64_t deadline = patience_ends();

        qtest_qmp_device_add(m->qts, "scsi-hd", "disk1",
                             "{ 'bus': 'hba0.0', 'drive': 'null', "
                             "'scsi-id': 1 }");
        post_many(m, &v, 1, UNPLUG_COMMANDS);
        qtest_qmp_device_del(m->qts, "disk1");
        for (n = 0; n < UNPLUG_COMMANDS; n++) {
            while (!qvirtqueue_get_buf(m->qts, v.vq[v.requestq], NULL, NULL)) {
                wait_before_poll(deadline, "used element");
            }
        }
    }
    virtio_scsi_stop(&v, &alloc);
    alloc_destroy(&alloc);
    test_end(m);
    machine_discard();
}

/* Residuals: what a command would have moved if it could */

/* Each direction's first access to sector 22 stops the machine */
#define STOP_ONCE       INJECT "event=none" INJECT "sector=22" \
                        INJECT "errno=5" INJECT "once=on"

#define DISCARD_STOP_ONCE \
                        ",discard=unmap" INJECT "event=none" \
                        INJECT "iotype=discard" INJECT "errno=5" \
                        INJECT "once=on"

#define STOP_ONCE_SETUP(faults, disk_properties) { \
        .machine = "-device virtio-scsi-pci,id=hba0,addr=6 " \
                   "-device scsi-hd,bus=hba0.0,drive=drive0,id=disk0," \
                   "rerror=stop,werror=stop" disk_properties, \
        .drive[0] = faults, \
        .disks = 1, \
        .hba_devfn = QPCI_DEVFN(VIRTIO_SLOT(0), 0), \
    }

static const Setup virtio_scsi_stop_once = STOP_ONCE_SETUP(STOP_ONCE, "");

/* The last command to the disk, which had stopped, has done all of its work */
static void end_stopped(Machine *m, VirtioScsi *v, QGuestAllocator *alloc)
{
    expect_transfer(m, &disk_req[0], disk_req[0].bytes);
    virtio_scsi_stop(v, alloc);
    alloc_destroy(alloc);
    test_end(m);
    machine_discard();
}

static void test_residual(Direction dir, uint32_t lba, uint32_t blocks,
                          const char *list)
{
    Machine *m = test_begin(&virtio_scsi_stop_once);
    QGuestAllocator alloc;
    VirtioScsi v;
    struct virtio_scsi_cmd_resp resp;

    virtio_scsi_start_all(m, &v, 1, &alloc);
    virtio_scsi_submit_blocks(m, &v, 0, dir, lba, blocks, list);
    if (lba == BAD_SECTOR) {
        qtest_qmp_eventwait(m->qts, "STOP");
        qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    }
    virtio_scsi_wait(m, &v, &resp);
    g_assert_cmphex(resp.response, ==, VIRTIO_SCSI_S_OK);
    g_assert_cmphex(resp.status, ==, SCSI_GOOD);
    g_assert_cmpuint(le32_to_cpu(resp.resid), ==, 0);
    end_stopped(m, &v, &alloc);
}

static void test_residual_surplus(void)
{
    test_residual(READ, 7, 2, "r1024+r100");
}

static void test_residual_retry_read(void)
{
    test_residual(READ, BAD_SECTOR, 0, "r100+r924");
}

static void test_residual_retry_write(void)
{
    test_residual(WRITE, BAD_SECTOR, 0, "r100+r924");
}

static void test_residual_retry_surplus(void)
{
    test_residual(WRITE, BAD_SECTOR, 2, "r100+r1024");
}

/*
 * The data of a command that the disk emulates is not migrated.  If it has to
 * be done again on the other side, it ends with an error instead.
 */

typedef struct LostDataTest {
    const char *name;
    Setup setup;
    uint8_t cdb[10];
    uint8_t data[SECTOR];
    uint32_t len;
} LostDataTest;

static const LostDataTest lost_data_tests[] = {
    {
        .name = "write-same",
        .setup = STOP_ONCE_SETUP(STOP_ONCE, ""),
        .cdb = { SCSI_WRITE_SAME_10, [5] = BAD_SECTOR, [8] = 1 },
        .data = "abc",
        .len = SECTOR,
    }, {
        /* As machines up to version 9.0 do it */
        .name = "write-same-old",
        .setup = STOP_ONCE_SETUP(STOP_ONCE,
                                 ",migrate-emulated-scsi-request=off"),
        .cdb = { SCSI_WRITE_SAME_10, [5] = BAD_SECTOR, [8] = 1 },
        .data = "abc",
        .len = SECTOR,
    }, {
        /* One block descriptor: eight blocks */
        .name = "unmap",
        .setup = STOP_ONCE_SETUP(DISCARD_STOP_ONCE, ""),
        .cdb = { SCSI_UNMAP, [8] = 24 },
        .data = { [1] = 22, [3] = 16, [15] = 40, [19] = 8 },
        .len = 24,
    },
};

static void test_migrate_lost_data(const void *data)
{
    const LostDataTest *t = data;
    Machine *m = test_begin(&t->setup);
    struct virtio_scsi_cmd_resp resp;
    SGEntry entry = { .len = t->len };
    QGuestAllocator alloc;
    VirtioScsi v;

    virtio_scsi_start_all(m, &v, 1, &alloc);
    entry.addr = guest_alloc(&alloc, t->len);
    qtest_memwrite(m->qts, entry.addr, t->data, t->len);
    virtio_scsi_post(m, &v, t->cdb, sizeof(t->cdb), WRITE, &entry, 1);
    qtest_qmp_eventwait(m->qts, "STOP");
    machine_migrate(m);
    v.pci->pdev->bus = m->pci;
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    virtio_scsi_wait(m, &v, &resp);
    g_assert_cmphex(resp.response, ==, VIRTIO_SCSI_S_OK);
    g_assert_cmphex(resp.status, ==, SCSI_CHECK_CONDITION);
    g_assert_cmphex(resp.sense[SENSE_KEY], ==, ABORTED_COMMAND);
    assert_everything(m);

    virtio_scsi_submit_blocks(m, &v, 0, WRITE, 100, 0, "r8192");
    virtio_scsi_wait(m, &v, &resp);
    g_assert_cmphex(resp.status, ==, SCSI_GOOD);
    end_stopped(m, &v, &alloc);
}

/*
 * The same with a mass-storage device: Universal Host Controller Interface 1.1,
 * USB 2.0, and USB Mass Storage Class, Bulk-Only Transport 1.0
 */

static const Setup usb_storage = {
    .machine = "-device piix3-usb-uhci,id=uhci,addr=6 "
               "-device usb-storage,bus=uhci.0,drive=drive0",
    .disks = 1,
    .hba_devfn = QPCI_DEVFN(6, 0),
    .hba_bar = 4,
};

#define UHCI_FRAMES             1024
#define UHCI_TERMINATE          1
#define UHCI_FRAME_LIST         VIRTIO_MEMORY_BEGIN
#define UHCI_TD                 (UHCI_FRAME_LIST + UHCI_FRAMES * 4)
#define UHCI_BUFFER             (UHCI_TD + 16)

#define USB_PID_IN              0x69
#define USB_PID_OUT             0xe1
#define USB_PID_SETUP           0x2d
#define USB_SET_CONFIGURATION   9

/* Of usb-storage */
#define BULK_IN                 1
#define BULK_OUT                2
#define BULK_PACKET             64

#define CBW_SIGNATURE           0x43425355
#define CBW_SIZE                31
#define CSW_SIGNATURE           0x53425355
#define CSW_SIZE                13
#define CSW_STATUS              12

/*
 * One packet to or from the device at address 0, which does not toggle data;
 * returns the status of its transfer descriptor
 */
static uint32_t usb_try_packet(Machine *m, uint8_t pid, int endpoint,
                               void *data, uint32_t len)
{
    const uint32_t td[4] = {
        cpu_to_le32(UHCI_TERMINATE),
        cpu_to_le32(TD_CTRL_ACTIVE | 3 << TD_CTRL_ERROR_SHIFT),
        cpu_to_le32(pid | endpoint << 15 | ((len - 1) & 0x7ff) << 21),
        cpu_to_le32(UHCI_BUFFER),
    };
    int64_t deadline = patience_ends();
    uint32_t ctrl;

    g_assert_cmpuint(len, <=, BULK_PACKET);
    if (pid != USB_PID_IN) {
        qtest_memwrite(m->qts, UHCI_BUFFER, data, len);
    }
    qtest_memwrite(m->qts, UHCI_TD, td, sizeof(td));
    do {
        wait_before_poll(deadline, "USB packet");
        qtest_clock_step(m->qts, NANOSECONDS_PER_SECOND / 1000);
        ctrl = qtest_readl(m->qts, UHCI_TD + 4);
    } while (ctrl & TD_CTRL_ACTIVE);
    if (pid == USB_PID_IN) {
        qtest_memread(m->qts, UHCI_BUFFER, data, len);
    }
    return ctrl;
}

static void usb_packet(Machine *m, uint8_t pid, int endpoint, void *data,
                       uint32_t len)
{
    uint32_t ctrl = usb_try_packet(m, pid, endpoint, data, len);

    g_assert_cmphex(ctrl & (TD_CTRL_STALL | TD_CTRL_BABBLE | TD_CTRL_TIMEOUT),
                    ==, 0);
    g_assert_cmpuint((ctrl + 1) & 0x7ff, ==, len);
}

static void usb_start(Machine *m)
{
    uint8_t set_configuration[8] = { 0, USB_SET_CONFIGURATION, 1 };
    int i;

    for (i = 0; i < UHCI_FRAMES; i++) {
        qtest_writel(m->qts, UHCI_FRAME_LIST + i * 4, UHCI_TD);
    }
    qtest_writel(m->qts, UHCI_TD, UHCI_TERMINATE);
    qtest_writel(m->qts, UHCI_TD + 4, 0);
    qpci_io_writel(m->hba, m->hba_bar, UHCI_USBFLBASEADD, UHCI_FRAME_LIST);
    qpci_io_writew(m->hba, m->hba_bar, UHCI_USBPORTSC1, UHCI_PORT_RESET);
    qpci_io_writew(m->hba, m->hba_bar, UHCI_USBPORTSC1, UHCI_PORT_EN);
    qpci_io_writew(m->hba, m->hba_bar, UHCI_USBCMD, UHCI_CMD_RS);
    usb_packet(m, USB_PID_SETUP, 0, set_configuration,
               sizeof(set_configuration));
    usb_packet(m, USB_PID_IN, 0, NULL, 0);
}

static void usb_command(Machine *m, const uint8_t *cdb, int cdb_len,
                        Direction dir, uint32_t len)
{
    uint8_t cbw[CBW_SIZE] = { [12] = dir == READ ? 0x80 : 0, [14] = cdb_len };

    stl_le_p(&cbw[0], CBW_SIGNATURE);
    stl_le_p(&cbw[8], len);
    memcpy(&cbw[15], cdb, cdb_len);
    usb_packet(m, USB_PID_OUT, BULK_OUT, cbw, sizeof(cbw));
}

static uint8_t usb_status(Machine *m)
{
    uint8_t csw[CSW_SIZE];

    usb_packet(m, USB_PID_IN, BULK_IN, csw, sizeof(csw));
    g_assert_cmphex(ldl_le_p(csw), ==, CSW_SIGNATURE);
    return csw[CSW_STATUS];
}

/* Power on */
static void usb_clear_unit_attention(Machine *m)
{
    static const uint8_t test_unit_ready[6];

    usb_command(m, test_unit_ready, sizeof(test_unit_ready), WRITE, 0);
    usb_status(m);
}

/* The command ends before the guest has sent all of its data. */
static void test_migrate_usb_storage_write_same(void)
{
    static const uint8_t write_same[10] = { SCSI_WRITE_SAME_10, [8] = 1 };
    static const uint8_t request_sense[6] = { SCSI_REQUEST_SENSE, [4] = 18 };
    uint8_t packet[BULK_PACKET], sense[18];
    Machine *m = test_begin(&usb_storage);
    int i;

    usb_start(m);
    usb_clear_unit_attention(m);
    memset(packet, 0xa5, sizeof(packet));
    usb_command(m, write_same, sizeof(write_same), WRITE, SECTOR);
    for (i = 0; i < SECTOR / BULK_PACKET; i++) {
        if (i == 3) {
            machine_migrate(m);
        }
        usb_packet(m, USB_PID_OUT, BULK_OUT, packet, sizeof(packet));
    }
    g_assert_cmphex(usb_status(m), ==, 1);
    usb_command(m, request_sense, sizeof(request_sense), READ, sizeof(sense));
    usb_packet(m, USB_PID_IN, BULK_IN, sense, sizeof(sense));
    g_assert_cmphex(usb_status(m), ==, 0);
    g_assert_cmphex(sense[SENSE_KEY], ==, ABORTED_COMMAND);
    assert_everything(m);
    test_end(m);
    machine_discard();
}

/* What a disk has read is migrated. */
static void test_migrate_usb_storage_read(void)
{
    static const uint8_t read[10] = { SCSI_READ_10, [5] = 7, [8] = 1 };
    Machine *m = test_begin(&usb_storage);
    uint8_t data[SECTOR];
    int i;

    usb_start(m);
    usb_clear_unit_attention(m);
    usb_command(m, read, sizeof(read), READ, SECTOR);
    for (i = 0; i < SECTOR; i += BULK_PACKET) {
        if (i == 3 * BULK_PACKET) {
            machine_migrate(m);
        }
        usb_packet(m, USB_PID_IN, BULK_IN, data + i, BULK_PACKET);
    }
    g_assert_cmphex(usb_status(m), ==, 0);
    g_assert_true(!memcmp(data, m->image[0] + 7 * SECTOR, SECTOR));
    test_end(m);
    machine_discard();
}

/* What QEMU has made up is not: the device wants to be reset. */
static void test_migrate_usb_storage_reply(const uint8_t *cdb, int cdb_len)
{
    Machine *m = test_begin(&usb_storage);
    uint8_t want[16], got[16];

    usb_start(m);
    usb_command(m, cdb, cdb_len, READ, sizeof(want));
    usb_packet(m, USB_PID_IN, BULK_IN, want, sizeof(want));
    g_assert_cmphex(usb_status(m), ==, 0);
    usb_command(m, cdb, cdb_len, READ, sizeof(got));
    machine_migrate(m);
    g_assert_true(usb_try_packet(m, USB_PID_IN, BULK_IN, got, sizeof(got)) &
                  TD_CTRL_STALL);
    usb_start(m);
    usb_command(m, cdb, cdb_len, READ, sizeof(got));
    usb_packet(m, USB_PID_IN, BULK_IN, got, sizeof(got));
    g_assert_cmphex(usb_status(m), ==, 0);
    g_assert_true(!memcmp(got, want, sizeof(want)));
    test_end(m);
    machine_discard();
}

static void test_migrate_usb_storage_inquiry(void)
{
    static const uint8_t inquiry[6] = { SCSI_INQUIRY, [4] = 16 };

    test_migrate_usb_storage_reply(inquiry, sizeof(inquiry));
}

static void test_migrate_usb_storage_report_luns(void)
{
    static const uint8_t report_luns[12] = { SCSI_REPORT_LUNS, [9] = 16 };

    test_migrate_usb_storage_reply(report_luns, sizeof(report_luns));
}

/* A write that waits to be done again, in a stream that is not true */
static const uint8_t stopped_write[10] = {
    SCSI_WRITE_10, [5] = BAD_SECTOR, [8] = 1
};

static char *find_stopped_write(char *stream, gsize len)
{
    uint8_t request[1 + 16] = { 1 /* to be done again */ };

    memcpy(&request[1], stopped_write, sizeof(stopped_write));
    return find_in_stream(stream, len, request, sizeof(request));
}

/* Behind the CDB, the tag and the LUN is the HBA's. */
static void forge_queue(char *stream, gsize len, const void *opaque)
{
    char *queue = find_stopped_write(stream, len) + 1 + 16 + 4 + 4;

    g_assert_cmpint(ldl_be_p(queue), ==, 0);
    stl_be_p(queue, 1);
}

static void forge_direction(char *stream, gsize len, const void *opaque)
{
    find_stopped_write(stream, len)[1] = SCSI_READ_10;
}

static void test_migrate_forged(Forge *forge)
{
    Machine *m = test_begin(&virtio_scsi_stop_once);
    struct virtio_scsi_cmd_resp resp;
    QGuestAllocator alloc;
    VirtioScsi v;

    virtio_scsi_start_all(m, &v, 1, &alloc);
    virtio_scsi_submit_blocks(m, &v, 0, WRITE, BAD_SECTOR, 0, "r512");
    qtest_qmp_eventwait(m->qts, "STOP");
    machine_migrate_forged(m, forge, NULL);
    virtio_scsi_wait(m, &v, &resp);
    g_assert_cmphex(resp.status, ==, SCSI_GOOD);
    end_stopped(m, &v, &alloc);
}

static void test_migrate_forged_queue(void)
{
    test_migrate_forged(forge_queue);
}

static void test_migrate_forged_direction(void)
{
    test_migrate_forged(forge_direction);
}

/* Each device counts what its thread does, and nothing of the other's */
static void test_iothread_counters(void)
{
    static const char *const list[] = { "r512@0", "r100@65536+r924@65636" };
    Machine *m = test_begin(&virtio_scsi);
    QGuestAllocator alloc;
    VirtioScsi v[2];
    int i, n;

    virtio_scsi_start_all(m, v, 2, &alloc);
    dma_counters_reset(m->qts);
    for (i = 0; i < 100; i++) {
        for (n = 0; n < 2; n++) {
            virtio_scsi_submit(m, &v[n], n, READ, 7, list[n]);
        }
        for (n = 0; n < 2; n++) {
            virtio_scsi_finish(m, &v[n], n);
        }
    }
    expect_dma_counters(m->qts, "/hba0/virtio-backend",
                        "requests=100 bytes-direct=51200");
    expect_dma_counters(m->qts, "/hba1/virtio-backend",
                        "requests=100 bytes-direct=102400");
    expect_dma_counters(m->qts, "total", "requests=200 bytes-direct=153600");
    expect_dma_drive_counters(m->qts, "drive0",
                              "requests-untouched=100 bytes-direct=51200");
    expect_dma_drive_counters(m->qts, "drive1",
                              "requests-untouched=100 bytes-direct=102400");
    expect_dma_drive_counters(m->qts, "total",
                              "requests-untouched=200 bytes-direct=153600");
    for (n = 0; n < 2; n++) {
        virtio_scsi_stop(&v[n], &alloc);
    }
    alloc_destroy(&alloc);
    test_end(m);
    machine_discard();
}

/* Initializing the firmware ends all commands, as a reset does */
static void test_init_in_flight(const void *data)
{
    const ScsiTest *t = data;
    Machine *m = test_begin(&megasas_slow);

    submit(m, 0, t->dir, BAD_SECTOR, t->list);
    megasas_init(m);
    expect_partial_transfer(m, &disk_req[0]);
    region_accept(m, TABLE, MFI_FRAME(0) + MFI_FRAME_CMD_STATUS, 2);
    qpci_io_writel(m->hba, m->hba_bar, MFI_IDB, MFI_IDB_READY);
    /* This takes so long that a stray transfer would come to light */
    assert_usable(m, 0, BAD_SECTOR);
    test_end(m);
}

/* Post a frame in MMIO, without a command: is there a bounce buffer for it? */
static bool post_in_mmio(Machine *m)
{
    static const uint8_t frame[] = { 0xff, 0, MFI_STAT_PENDING, 0 };
    Region *mmio = &m->region[MMIO];
    uint32_t offset = mmio->size - MFI_FRAME_MAPPED;

    region_write(m, MMIO, offset, frame, sizeof(frame));
    qpci_io_writel(m->hba, m->hba_bar, MFI_IQP, mmio->base + offset);
    region_accept(m, MMIO, offset, sizeof(frame));
    return mmio->want[offset + MFI_FRAME_SCSI_STATUS] != SCSI_BUSY;
}

static void assert_frames_usable(Machine *m)
{
    hold_pool(m, "m1024@0");
    g_assert_true(post_in_mmio(m));
    release_pool(m);
    assert_usable(m, 0, 100);
}

/* No number of refused frames takes the places of others */
static void test_frame_not_mapped(void)
{
    Machine *m = test_begin(&megasas);
    int i;

    hold_pool(m, WHOLE_POOL);
    for (i = 0; i < MFI_MAX_FRAMES; i++) {
        g_assert_false(post_in_mmio(m));
    }
    release_pool(m);
    assert_frames_usable(m);
    test_end(m);
}

/* What was mapped of a frame that is refused goes back to the pool */
static void test_frame_partly_mapped(void)
{
    Machine *m = test_begin(&megasas);

    /* There is some space left, but less than a frame needs */
    hold_pool(m, "m2560@0");
    g_assert_false(post_in_mmio(m));
    release_pool(m);
    assert_frames_usable(m);
    test_end(m);
}

/* A device takes its counters with it; totals do not decrease */
static void test_unplug_counters(void)
{
    static const char hba[] = "/machine/peripheral/hba";
    static const char drives[] = "requests-untouched=2 bytes-direct=2048";
    Machine *m = test_begin(&megasas);

    dma_counters_reset(m->qts);
    submit(m, 0, READ, 7, "r512+m512");
    finish(m, 0);
    submit(m, 1, READ, 7, "r1024");
    finish(m, 1);
    expect_dma_counters(m->qts, hba, "requests=2 bytes-direct=1536 "
                        "bytes-bounced=512 bounced-mmio=512");
    expect_dma_drive_counters(m->qts, "drive0",
                              "requests-untouched=1 bytes-direct=1024");

    qpci_unplug_acpi_device_test(m->qts, "hba", MEGASAS_SLOT);
    expect_dma_counters(m->qts, hba, NULL);
    expect_dma_counters(m->qts, NULL, NULL);
    expect_dma_counters(m->qts, "total", "requests=2 bytes-direct=1536 "
                        "bytes-bounced=512 bounced-mmio=512");
    expect_dma_drive_counters(m->qts, "drive0", NULL);
    expect_dma_drive_counters(m->qts, "total", drives);

    /* Another in the same slot begins with nothing */
    qtest_qmp_device_add(m->qts, "megasas", "hba", "{ 'addr': '5' }");
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'blockdev-add',"
                             "  'arguments': { 'driver': 'null-co',"
                             "    'node-name': 'null', 'read-zeroes': true,"
                             "    'size': %ld } }", DISK_SIZE);
    qtest_qmp_device_add(m->qts, "scsi-hd", "disk0",
                         "{ 'bus': 'hba.0', 'scsi-id': 0, 'drive': 'null' }");
    machine_reset(m);
    expect_dma_counters(m->qts, hba, NULL);
    memset(m->image[0], 0, DISK_SIZE);
    submit(m, 0, READ, 7, "r2048");
    finish(m, 0);
    expect_dma_counters(m->qts, hba, "requests=1 bytes-direct=2048");
    expect_dma_counters(m->qts, "total", "requests=3 bytes-direct=3584 "
                        "bytes-bounced=512 bounced-mmio=512");
    machine_discard();
}

int main(int argc, char **argv)
{
    static const char *const odd_lists[] = {
        "100xr1+r412",
        "100xm1+m412",
        "r1@0+r1@1+r510@2",
        "64xr1+64xm7",
        "r1+m1+r1+m1+r508",
        "r1+m511",
        "m1+r511",
        "r1+m8191",
        "m4095+r2+m4095",
        "r510+m6145+r1",
        "r333+o333+h333+m333+e333@3999+s1@16383+r382",
        "r131072",
        "e511@3841+o1@16383",
        NULL
    };
    static const char *const surplus_lists[] = {
        "r1024+r100", "r1000+m100", "m1100", "r1+m2047", NULL
    };
    static const char *const error_lists[] = {
        "r512", "m512", "r1+m511", "m1+r511", "r1+o100+h100+m311", NULL
    };
    int i;

    g_test_init(&argc, &argv, NULL);

    add_tests("odd", odd_lists, test_list);
    add_tests("surplus", surplus_lists, test_surplus);
    add_tests("error", error_lists, test_error);
    add_tests("compete", waiting_lists, test_compete);
    add_tests("abort/waiting", waiting_lists, test_abort_waiting);
    add_tests("abort/in-flight", in_flight_lists, test_abort_in_flight);
    add_tests("init/in-flight", in_flight_lists, test_init_in_flight);
    add_tests("reset", waiting_lists, test_reset);
    add_tests("system-reset", waiting_lists, test_system_reset);
    add_tests("unplug/waiting", waiting_lists, test_unplug_waiting);
    add_tests("unplug/in-flight", waiting_lists, test_unplug_in_flight);
    add_tests("unplug/controller", waiting_lists, test_unplug_controller);

    qtest_add_func("scsi-dma/frame/not-mapped", test_frame_not_mapped);
    qtest_add_func("scsi-dma/frame/partly-mapped", test_frame_partly_mapped);
    qtest_add_func("scsi-dma/iothreads/disks", test_iothreads);
    qtest_add_func("scsi-dma/iothreads/queues", test_iothreads_of_queues);
    qtest_add_func("scsi-dma/iothreads/wait", test_iothreads_wait);
    qtest_add_func("scsi-dma/iothreads/unplug", test_iothreads_unplug);
    qtest_add_func("scsi-dma/counters/iothreads", test_iothread_counters);
    qtest_add_func("scsi-dma/counters/unplug", test_unplug_counters);
    qtest_add_func("scsi-dma/residual/surplus", test_residual_surplus);
    qtest_add_func("scsi-dma/residual/retry-read", test_residual_retry_read);
    qtest_add_func("scsi-dma/residual/retry-write", test_residual_retry_write);
    qtest_add_func("scsi-dma/residual/retry-surplus",
                   test_residual_retry_surplus);
    qtest_add_func("scsi-dma/migrate/usb-storage/write-same",
                   test_migrate_usb_storage_write_same);
    qtest_add_func("scsi-dma/migrate/usb-storage/read",
                   test_migrate_usb_storage_read);
    qtest_add_func("scsi-dma/migrate/usb-storage/inquiry",
                   test_migrate_usb_storage_inquiry);
    qtest_add_func("scsi-dma/migrate/usb-storage/report-luns",
                   test_migrate_usb_storage_report_luns);
    qtest_add_func("scsi-dma/migrate/forged-queue", test_migrate_forged_queue);
    qtest_add_func("scsi-dma/migrate/forged-direction",
                   test_migrate_forged_direction);
    for (i = 0; i < ARRAY_SIZE(lost_data_tests); i++) {
        g_autofree char *path = g_strdup_printf("scsi-dma/migrate/%s",
                                                lost_data_tests[i].name);

        qtest_add_data_func(path, &lost_data_tests[i], test_migrate_lost_data);
    }

    return test_run();
}
