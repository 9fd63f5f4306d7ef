/*
 * Storage controllers whose DMA and interrupts go to their own registers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A request ends with data in a bounce buffer being written back, and with an
 * interrupt that may be a write, too.  If such a write resets the controller,
 * this may not wait for the very request to end.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/iov.h"
#include "qemu/units.h"
#include "ahci-dma-util.h"
#include "block/nvme.h"
#include "dma-hba-util.h"
#include "hw/pci/pci_regs.h"
#include "lsi-scripts.h"
#include "scsi-test-util.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_net.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"
#include "standard-headers/misc/pvpanic.h"

/* AHCI 1.3.1, chapter 3 */
#define IS                      0x08
#define GHC_IE                  0x00000002
#define P0IE                    0x114

#define MEGASAS_REGISTERS_BAR   0
#define VIRTIO_MSIX_BAR         1
#define LSI_REGISTERS_BAR       1
#define NVME_CMB_BAR            2
#define NVME_CMB_SLOT           7

/* Data that does the thing: these bits of a little-endian word at its start */
typedef struct Word {
    uint32_t mask;
    uint32_t value;
} Word;

typedef struct OwnTest {
    const char *hba;
    const char *name;
    uint32_t reg;
    Word data;
    int bytes;                  /* for the register */
    const char *machine;
    const char *list;           /* of more sectors */
} OwnTest;

static const HbaType *hba_type(const char *name)
{
    int i;

    for (i = 0; i < HBA_TYPES; i++) {
        if (!strcmp(hba_types[i].name, name)) {
            return &hba_types[i];
        }
    }
    g_assert_not_reached();
}

/* Where on the disk there is such a word, at the beginning of a sector */
static uint32_t find(Machine *m, Word word, uint32_t sector_size)
{
    uint32_t at = 0;

    while ((ldl_le_p(m->image[0] + at) & word.mask) != word.value) {
        at += sector_size;
        g_assert_cmpuint(at, <, m->disk_size);
    }
    return at;
}

/*
 * A request for such a sector, whose first bytes go to a register, and for as
 * many more as @more has room for
 */
static void request_to_register(Machine *m, Request *req, Word word,
                                uint32_t sector_size, int bytes,
                                const char *more)
{
    g_autofree char *list = g_strdup_printf("h%d@0+r%d%s", bytes,
                                            sector_size - bytes, more);

    request_init(m, req, READ, 0, find(m, word, sector_size), 0, list);
}

/* In the place of nothing, which is what the bytes shall go to */
static uint64_t region_replace(Machine *m, uint64_t base)
{
    uint64_t old = m->region[HOLE].base;

    m->region[HOLE].base = base;
    return old;
}

static void test_data(const void *data)
{
    const OwnTest *t = data;
    const HbaType *hba = hba_type(t->hba);
    Setup setup = hba_setup(hba, NULL, NULL, NULL, t->machine);
    Machine *m = test_begin(&setup);
    Progress progress;
    uint64_t hole;
    Request req;

    hba->start(m);
    hba_clear_attention(m, hba);
    request_to_register(m, &req, t->data, hba->cd ? CD_SECTOR : SECTOR,
                        t->bytes, t->list ?: "");
    hole = region_replace(m, m->hba_bar.addr + t->reg);
    hba->submit(m, 0, &req);
    progress = hba_wait(m, hba, 0);
    region_replace(m, hole);

    g_assert_cmpint(progress, ==, ENDED_WELL);
    expect_transfer(m, &req, req.bytes);
    request_free(&req);
    hba_clear_attention(m, hba);
    hba->stop(m);
    test_end(m);
}

/* AHCI: commands that are not among what all controllers do */

static void test_ahci_command(const void *data)
{
    const uint8_t *command = data;
    const Word reset = { GHC_HR, GHC_HR };
    const HbaType *hba = hba_type("ahci");
    Setup setup = hba_setup(hba, NULL, NULL, NULL, NULL);
    Machine *m = test_begin(&setup);
    AhciCommand cmd;
    uint64_t hole;
    Request req;

    hba->start(m);
    request_to_register(m, &req, reset, SECTOR, 4, "");
    hole = region_replace(m, m->hba_bar.addr + GHC);
    cmd = ahci_ata_command(0, *command, &req);
    ahci_issue(m, &cmd);
    wait_until_clear(m, P0CI, 1);
    wait_until_clear(m, P0SACT, 1);
    region_replace(m, hole);
    ahci_accept(m);
    expect_transfer(m, &req, req.bytes);
    request_free(&req);
    hba_clear_attention(m, hba);
    test_end(m);
}

/* Its interrupt is a message to itself */
static void test_ahci_msi(void)
{
    const HbaType *hba = hba_type("ahci");
    Setup setup = hba_setup(hba, NULL, NULL, NULL, NULL);
    Machine *m = test_begin(&setup);
    uint8_t msi = qpci_find_capability(m->hba, PCI_CAP_ID_MSI, 0);
    uint16_t control = qpci_config_readw(m->hba, msi + PCI_MSI_FLAGS);
    bool is_64bit = control & PCI_MSI_FLAGS_64BIT;

    g_assert_cmphex(msi, !=, 0);
    hba->start(m);
    qpci_config_writel(m->hba, msi + PCI_MSI_ADDRESS_LO,
                       m->hba_bar.addr + GHC);
    if (is_64bit) {
        qpci_config_writel(m->hba, msi + PCI_MSI_ADDRESS_HI,
                           m->hba_bar.addr >> 32);
    }
    qpci_config_writew(m->hba, msi + (is_64bit ? PCI_MSI_DATA_64 :
                                      PCI_MSI_DATA_32), GHC_HR);
    qpci_config_writew(m->hba, msi + PCI_MSI_FLAGS,
                       control | PCI_MSI_FLAGS_ENABLE);
    hba_writel(m, P0IE, ~0u);
    hba_writel(m, GHC, GHC_AE | GHC_IE);

    hba_clear_attention(m, hba);
    /* The interrupt has been raised, and the controller was not reset */
    g_assert_cmphex(hba_readl(m, IS), ==, 1);
    g_assert_cmphex(hba_readl(m, GHC), ==, GHC_AE | GHC_IE);
    test_end(m);
}

/* virtio-scsi */

#define VIRTIO_SCSI_SLOT        5
#define OTHER_SLOT              6

static const Setup virtio_scsi = {
    .machine = "-device virtio-scsi-pci,id=hba,addr=5,disable-legacy=on "
               "-device scsi-hd,bus=hba.0,drive=drive0",
    .disks = 1,
    .hba_devfn = QPCI_DEVFN(VIRTIO_SCSI_SLOT, 0),
    .hba_bar = VIRTIO_MSIX_BAR,
};

static const Setup virtio_scsi_iothreads = {
    .machine = "-object iothread,id=thread0 -object iothread,id=thread1 "
               "-device virtio-scsi-pci,id=hba,addr=5,disable-legacy=on,"
               "iothread=thread0 "
               "-device scsi-hd,bus=hba.0,drive=drive0,id=disk0 "
               "-device virtio-scsi-pci,id=other,addr=6,disable-legacy=on,"
               "iothread=thread1 "
               "-device scsi-hd,bus=other.0,drive=drive1",
    .disks = 2,
    .hba_devfn = QPCI_DEVFN(VIRTIO_SCSI_SLOT, 0),
    .hba_bar = VIRTIO_MSIX_BAR,
};

static const Word status_reset = { 0xff, 0 };

static void virtio_attach(Machine *m, VirtioScsi *v, int slot,
                          QGuestAllocator *alloc)
{
    alloc_init(alloc, 0, VIRTIO_MEMORY_BEGIN, VIRTIO_MEMORY_END, 4 * KiB);
    virtio_scsi_start(m, v, slot, alloc);
}

static Machine *virtio_begin(const Setup *setup, VirtioScsi *v,
                             QGuestAllocator *alloc)
{
    Machine *m = test_begin(setup);

    virtio_attach(m, v, VIRTIO_SCSI_SLOT, alloc);
    return m;
}

static void virtio_end(Machine *m, VirtioScsi *v, QGuestAllocator *alloc)
{
    virtio_scsi_stop(v, alloc);
    alloc_destroy(alloc);
    test_end(m);
}

static uint64_t virtio_common_reg(QVirtioPCIDevice *pci, size_t offset)
{
    return pci->bar.addr + pci->common_cfg_offset + offset;
}

#define VIRTIO_COMMON_REG(v, name)                                           \
    virtio_common_reg((v)->pci, offsetof(struct virtio_pci_common_cfg, name))

/* READ (10) or WRITE (10) of one sector */
static void virtio_post(Machine *m, VirtioScsi *v, const Request *req,
                        const SGEntry *list, int entries)
{
    uint8_t cdb[10] = { req->dir == READ ? 0x28 : 0x2a, [8] = 1 };

    stl_be_p(&cdb[2], req->start / SECTOR);
    virtio_scsi_post(m, v, cdb, sizeof(cdb), req->dir, list, entries);
}

static void virtio_expect_good(Machine *m, VirtioScsi *v, Request *req)
{
    struct virtio_scsi_cmd_resp resp;

    virtio_scsi_wait(m, v, &resp);
    g_assert_cmphex(resp.response, ==, VIRTIO_SCSI_S_OK);
    g_assert_cmphex(resp.status, ==, SCSI_GOOD);
    expect_transfer(m, req, req->bytes);
}

/* Read a sector; its first byte goes to a register. */
static void read_byte_to(Machine *m, VirtioScsi *v, Word word, uint64_t addr)
{
    g_autofree SGEntry *list = NULL;
    Request req;

    request_to_register(m, &req, word, SECTOR, 1, "");
    list = sg_entries(m, &req);
    list[0].addr = addr;
    virtio_post(m, v, &req, list, 2);
    virtio_expect_good(m, v, &req);
    request_free(&req);
}

static void test_virtio_scsi(void)
{
    QGuestAllocator alloc;
    VirtioScsi v;
    Machine *m = virtio_begin(&virtio_scsi, &v, &alloc);

    read_byte_to(m, &v, status_reset, VIRTIO_COMMON_REG(&v, device_status));
    virtio_end(m, &v, &alloc);
}

static uint8_t virtio_status(VirtioScsi *v)
{
    return v->pci->vdev.bus->get_status(&v->pci->vdev);
}

static void virtio_wait_status(Machine *m, VirtioScsi *v, uint8_t mask,
                               uint8_t value)
{
    int64_t deadline = patience_ends();

    while ((virtio_status(v) & mask) != value) {
        wait_before_poll(deadline, "device status");
    }
}

#define NEEDS_RESET     VIRTIO_CONFIG_S_NEEDS_RESET

static void virtio_read(Machine *m, VirtioScsi *v)
{
    g_autofree SGEntry *list = NULL;
    Request req;

    request_init(m, &req, READ, 0, 7 * SECTOR, 0, "r512");
    list = sg_entries(m, &req);
    virtio_post(m, v, &req, list, 1);
    virtio_expect_good(m, v, &req);
    request_free(&req);
}

/* The driver resets what has failed, and goes on. */
static void virtio_recover(Machine *m, VirtioScsi *v, QGuestAllocator *alloc)
{
    virtio_scsi_stop(v, alloc);
    virtio_scsi_start(m, v, VIRTIO_SCSI_SLOT, alloc);
    virtio_read(m, v);
}

/*
 * Another controller that has the same disk: it would wait for all requests on
 * the node.
 */

#define SHARED_SETUP(controller, slot, bar) { \
        .machine = "-device virtio-scsi-pci,id=hba,addr=5,disable-legacy=on " \
                   "-device scsi-hd,bus=hba.0,drive=drive0,share-rw=on " \
                   "-device " controller ",id=other,addr=6 " \
                   "-device scsi-hd,bus=other.0,drive=drive0,share-rw=on", \
        .disks = 1, \
        .blockdev = "", \
        .hba_devfn = QPCI_DEVFN(slot, 0), \
        .hba_bar = (bar), \
    }

static void test_shared_virtio_scsi(void)
{
    static const Setup setup =
        SHARED_SETUP("virtio-scsi-pci,disable-legacy=on", VIRTIO_SCSI_SLOT,
                     VIRTIO_MSIX_BAR);
    QGuestAllocator alloc;
    VirtioScsi v, other;
    Machine *m = virtio_begin(&setup, &v, &alloc);

    virtio_scsi_start(m, &other, OTHER_SLOT, &alloc);
    read_byte_to(m, &v, status_reset, VIRTIO_COMMON_REG(&other, device_status));
    g_assert_cmphex(virtio_status(&other) & VIRTIO_CONFIG_S_DRIVER_OK, !=, 0);
    virtio_scsi_stop(&other, &alloc);
    virtio_end(m, &v, &alloc);
}

static void test_shared_lsi(void)
{
    static const Setup setup = SHARED_SETUP("lsi53c895a", OTHER_SLOT,
                                            LSI_REGISTERS_BAR);
    const Word reset = { 0xe8, ISTAT0_SRST };
    QGuestAllocator alloc;
    VirtioScsi v;
    Machine *m = virtio_begin(&setup, &v, &alloc);

    hba_writel(m, SCRATCHA, 0x12345678);
    read_byte_to(m, &v, reset, m->hba_bar.addr + ISTAT0);
    g_assert_cmphex(hba_readl(m, SCRATCHA), ==, 0x12345678);
    virtio_end(m, &v, &alloc);
}

/*
 * Memory of another controller is no register: it takes data, and has some.
 * virtio-scsi would map it a second time.
 */
static void test_cmb(void)
{
    const HbaType *hba = hba_type("ahci");
    Setup setup = hba_setup(hba, NULL, NULL, NULL,
                            "-device nvme,serial=0,addr=7,cmb_size_mb=1,"
                            "legacy-cmb=on");
    const uint32_t start[] = { [READ] = 7 * SECTOR, [WRITE] = 60 * SECTOR };
    g_autofree QPCIDevice *nvme = NULL;
    uint8_t buf[16 * SECTOR];
    Machine *m = test_begin(&setup);
    Progress progress;
    Direction dir;
    uint64_t hole;
    QPCIBar cmb;

    hba->start(m);
    hba_clear_attention(m, hba);
    nvme = qpci_device_find(m->pci, QPCI_DEVFN(NVME_CMB_SLOT, 0));
    qpci_device_enable(nvme);
    cmb = qpci_iomap(nvme, NVME_CMB_BAR, NULL);
    for (dir = READ; dir <= WRITE; dir++) {
        Request req;

        request_init(m, &req, dir, 0, start[dir], 0, "h8192@0");
        hole = region_replace(m, cmb.addr);
        hba->submit(m, 0, &req);
        progress = hba_wait(m, hba, 0);
        region_replace(m, hole);
        g_assert_cmpint(progress, ==, ENDED_WELL);
        request_free(&req);
    }
    qtest_memread(m->qts, cmb.addr, buf, sizeof(buf));
    assert_same("controller memory buffer", cmb.addr, buf,
                m->image[0] + start[READ], sizeof(buf));
    memcpy(m->image[0] + start[WRITE], buf, sizeof(buf));
    hba_clear_attention(m, hba);
    hba->stop(m);
    test_end(m);
    machine_discard();
}

/* The machine stops, and that drains all disks. */
static void test_panic(void)
{
    static const Setup setup = {
        .machine = "-action panic=pause -device pvpanic-pci,addr=6 "
                   "-device virtio-scsi-pci,id=hba,addr=5,disable-legacy=on "
                   "-device scsi-hd,bus=hba.0,drive=drive0",
        .disks = 1,
        .hba_devfn = QPCI_DEVFN(OTHER_SLOT, 0),
    };
    const Word panicked = { 0xff, PVPANIC_PANICKED };
    QGuestAllocator alloc;
    VirtioScsi v;
    Machine *m = virtio_begin(&setup, &v, &alloc);

    read_byte_to(m, &v, panicked, m->hba_bar.addr);
    qtest_qmp_eventwait(m->qts, "GUEST_PANICKED");
    qtest_qmp_eventwait(m->qts, "STOP");
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    virtio_read(m, &v);
    virtio_end(m, &v, &alloc);
}

/*
 * An IOThread cannot access registers: some wait for requests, for which only
 * the main thread may wait.
 */

typedef struct OutOfReach {
    const char *name;
    Direction dir;
    bool other;                 /* another controller's */
} OutOfReach;

static void test_iothread(const void *data)
{
    const OutOfReach *t = data;
    g_autofree SGEntry *list = NULL;
    QGuestAllocator alloc;
    Request req;
    VirtioScsi v, other;
    Machine *m = virtio_begin(&virtio_scsi_iothreads, &v, &alloc);

    virtio_scsi_start(m, &other, OTHER_SLOT, &alloc);
    request_to_register(m, &req, status_reset, SECTOR, 1, "");
    req.dir = t->dir;
    list = sg_entries(m, &req);
    list[0].addr = VIRTIO_COMMON_REG(t->other ? &other : &v, device_status);
    virtio_post(m, &v, &req, list, 2);
    virtio_wait_status(m, &v, NEEDS_RESET, NEEDS_RESET);
    g_assert_cmphex(virtio_status(&other) & NEEDS_RESET, ==, 0);
    request_free(&req);
    virtio_recover(m, &v, &alloc);
    virtio_scsi_stop(&other, &alloc);
    virtio_end(m, &v, &alloc);
}

static const OutOfReach out_of_reach[] = {
    { "own/write", READ },
    { "own/read", WRITE },
    { "other/write", READ, .other = true },
};

/*
 * A command behind those that have been posted.  When it has ended, they are
 * in flight, or the device is broken.  Only its answer tells that, whatever
 * becomes of the used ring.
 */
static void run_test_unit_ready(Machine *m, VirtioScsi *v,
                                QGuestAllocator *alloc)
{
    const struct virtio_scsi_cmd_req cmd = { .lun = { 1 } };
    struct virtio_scsi_cmd_resp resp = { .response = 0xff };
    VirtioScsi next = virtio_scsi_queue(v, v->requestq, alloc);
    QVirtQueue *vq = next.vq[next.requestq];
    int64_t deadline = patience_ends();
    uint32_t head;

    qtest_memwrite(m->qts, next.req_addr, &cmd, sizeof(cmd));
    qtest_memwrite(m->qts, next.resp_addr, &resp, sizeof(resp));
    head = qvirtqueue_add(m->qts, vq, next.req_addr, sizeof(cmd), false, true);
    qvirtqueue_add(m->qts, vq, next.resp_addr, sizeof(resp), true, false);
    qvirtqueue_kick(m->qts, &v->pci->vdev, vq, head);
    while (!(virtio_status(v) & NEEDS_RESET) &&
           resp.response != VIRTIO_SCSI_S_OK) {
        wait_before_poll(deadline, "later request");
        qtest_memread(m->qts, next.resp_addr, &resp, sizeof(resp));
    }
}

static void put_used_ring(Machine *m, VirtioScsi *v, uint64_t ring)
{
    qtest_writew(m->qts, VIRTIO_COMMON_REG(v, queue_select), v->requestq);
    /* A longer one would not fit into a page of registers. */
    qtest_writew(m->qts, VIRTIO_COMMON_REG(v, queue_size), 64);
    qtest_writel(m->qts, VIRTIO_COMMON_REG(v, queue_used_lo), ring);
    qtest_writel(m->qts, VIRTIO_COMMON_REG(v, queue_used_hi), ring >> 32);
    qtest_writew(m->qts, VIRTIO_COMMON_REG(v, queue_enable), 1);
}

/* Elements of the used ring are no data, and go nowhere. */
static void test_iothread_ring(void)
{
    QGuestAllocator alloc;
    VirtioScsi v;
    Machine *m = virtio_begin(&virtio_scsi_iothreads, &v, &alloc);

    /* virtio_scsi_start() has used the first one. */
    put_used_ring(m, &v, VIRTIO_COMMON_REG(&v, device_status) -
                         offsetof(struct vring_used, ring) -
                         sizeof(struct vring_used_elem));
    run_test_unit_ready(m, &v, &alloc);
    g_assert_cmphex(virtio_status(&v) & VIRTIO_CONFIG_S_DRIVER_OK, !=, 0);
    g_assert_cmphex(virtio_status(&v) & NEEDS_RESET, ==, 0);
    virtio_recover(m, &v, &alloc);
    virtio_end(m, &v, &alloc);
}

/*
 * The main loop drains a disk with the BQL held, and the IOThread would need
 * that to write to registers at the end of the request: its data, or the
 * element of the used ring.
 */
static void test_iothread_drain(const void *data)
{
    bool ring = GPOINTER_TO_INT(data);
    g_autofree SGEntry *list = NULL;
    QGuestAllocator alloc;
    VirtioScsi v;
    Request req;
    Machine *m = virtio_begin(&virtio_scsi_iothreads, &v, &alloc);

    /* One request is what the drive may do in this second */
    throttle(m, 0, 0, 1);
    virtio_read(m, &v);
    if (ring) {
        put_used_ring(m, &v, m->region[MMIO].base);
    }
    /* Memory has that already */
    request_init(m, &req, READ, 0, 7 * SECTOR, 0, ring ? "r512" : "m512");
    list = sg_entries(m, &req);
    virtio_post(m, &v, &req, list, 1);
    run_test_unit_ready(m, &v, &alloc);

    qtest_qmp_assert_success(m->qts, "{ 'execute': 'stop' }");
    qtest_qmp_assert_success(m->qts, "{ 'execute': 'cont' }");
    throttle(m, 0, 0, 0);
    if (!ring) {
        virtio_wait_status(m, &v, NEEDS_RESET, NEEDS_RESET);
    }
    request_free(&req);
    virtio_recover(m, &v, &alloc);
    virtio_end(m, &v, &alloc);
}

/* Enable MSI-X; the first vector writes @data to @addr */
static void set_vector(QPCIDevice *pci, uint64_t addr, uint32_t data)
{
    qpci_msix_enable(pci);
    qpci_io_writel(pci, pci->msix_table_bar,
                   pci->msix_table_off + PCI_MSIX_ENTRY_LOWER_ADDR, addr);
    qpci_io_writel(pci, pci->msix_table_bar,
                   pci->msix_table_off + PCI_MSIX_ENTRY_UPPER_ADDR,
                   addr >> 32);
    qpci_io_writel(pci, pci->msix_table_bar,
                   pci->msix_table_off + PCI_MSIX_ENTRY_DATA, data);
    qpci_io_writel(pci, pci->msix_table_bar,
                   pci->msix_table_off + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
}

/* The interrupt that tells of a broken device resets it. */
static void test_iothread_msi(void)
{
    SGEntry nothing = { .len = 0 };
    QGuestAllocator alloc;
    Request req;
    VirtioScsi v;
    Machine *m = virtio_begin(&virtio_scsi_iothreads, &v, &alloc);

    set_vector(v.pci->pdev, VIRTIO_COMMON_REG(&v, device_status), 0);
    v.pci->msix_ops->set_config_vector(v.pci, 0);

    /* Descriptors without length are not allowed. */
    request_init(m, &req, READ, 0, 7 * SECTOR, 0, "r512");
    virtio_post(m, &v, &req, &nothing, 1);
    virtio_wait_status(m, &v, 0xff, 0);
    request_free(&req);
    qpci_msix_disable(v.pci->pdev);
    virtio_recover(m, &v, &alloc);
    virtio_end(m, &v, &alloc);
}

/* The answer to INQUIRY resets the controller before the command has ended. */
static void test_virtio_scsi_answer(void)
{
    const uint8_t cdb[6] = { 0x12 /* INQUIRY */, [4] = 2 };
    QGuestAllocator alloc;
    SGEntry list[2];
    VirtioScsi v;
    Machine *m = virtio_begin(&virtio_scsi, &v, &alloc);

    /* A disk, and not a removable one: both bytes are zero. */
    list[0] = (SGEntry) { guest_alloc(&alloc, 1), 1 };
    list[1] = (SGEntry) { VIRTIO_COMMON_REG(&v, device_status), 1 };
    virtio_scsi_post(m, &v, cdb, sizeof(cdb), READ, list, ARRAY_SIZE(list));
    virtio_wait_status(m, &v, 0xff, 0);
    virtio_recover(m, &v, &alloc);
    virtio_end(m, &v, &alloc);
}

/* A virtio device with one queue that matters */

typedef struct Virtio {
    QGuestAllocator alloc;
    QVirtioPCIDevice *pci;
    QVirtQueue *vq;
} Virtio;

static void virtio_start(Machine *m, Virtio *v, int devfn)
{
    alloc_init(&v->alloc, 0, VIRTIO_MEMORY_BEGIN, VIRTIO_MEMORY_END, 4 * KiB);
    v->pci = virtio_negotiate(m, devfn);
    v->vq = qvirtqueue_setup(&v->pci->vdev, &v->alloc, 0);
    qvirtio_set_driver_ok(&v->pci->vdev);
}

static void virtio_stop(Virtio *v)
{
    qvirtio_reset(&v->pci->vdev);
    qvirtqueue_cleanup(v->pci->vdev.bus, v->vq, &v->alloc);
    virtio_release(v->pci);
    alloc_destroy(&v->alloc);
}

static void test_virtio_blk(void)
{
    static const Setup setup = {
        .machine = "-device virtio-blk-pci,addr=5,disable-legacy=on,"
                   "drive=drive0",
        .disks = 1,
        .hba_devfn = QPCI_DEVFN(VIRTIO_SCSI_SLOT, 0),
        .hba_bar = VIRTIO_MSIX_BAR,
    };
    struct virtio_blk_outhdr header = { .type = VIRTIO_BLK_T_IN };
    g_autofree SGEntry *list = NULL;
    Machine *m = test_begin(&setup);
    uint64_t header_addr, status_addr;
    uint32_t head;
    Request req;
    Virtio v;

    virtio_start(m, &v, setup.hba_devfn);
    header_addr = guest_alloc(&v.alloc, sizeof(header));
    status_addr = guest_alloc(&v.alloc, 1);
    request_to_register(m, &req, status_reset, SECTOR, 1, "");
    list = sg_entries(m, &req);
    list[0].addr = VIRTIO_COMMON_REG(&v, device_status);
    header.sector = cpu_to_le64(req.start / SECTOR);
    qtest_memwrite(m->qts, header_addr, &header, sizeof(header));
    qtest_writeb(m->qts, status_addr, 0xff);
    head = qvirtqueue_add(m->qts, v.vq, header_addr, sizeof(header), false,
                          true);
    qvirtqueue_add(m->qts, v.vq, list[0].addr, list[0].len, true, true);
    qvirtqueue_add(m->qts, v.vq, list[1].addr, list[1].len, true, true);
    qvirtqueue_add(m->qts, v.vq, status_addr, 1, true, false);
    qvirtqueue_kick(m->qts, &v.pci->vdev, v.vq, head);
    virtio_wait_used(m, v.vq, head);
    g_assert_cmphex(qtest_readb(m->qts, status_addr), ==, VIRTIO_BLK_S_OK);
    expect_transfer(m, &req, req.bytes);
    request_free(&req);
    virtio_stop(&v);
    test_end(m);
}

static void test_megasas(void)
{
    static const Setup setup = {
        .machine = "-device megasas,id=hba,addr=5 "
                   "-device scsi-hd,bus=hba.0,drive=drive0",
        .disks = 1,
        .hba_devfn = QPCI_DEVFN(MEGASAS_SLOT, 0),
        .hba_bar = MEGASAS_REGISTERS_BAR,
    };
    const Word reset = { MFI_IDB_READY, MFI_IDB_READY };
    Machine *m = test_begin(&setup);
    uint8_t frame[MFI_IO_SGL + 2 * MFI_SGE_SIZE] = {
        [MFI_FRAME_CMD] = MFI_CMD_LD_READ,
        [MFI_FRAME_CMD_STATUS] = MFI_STAT_PENDING,
        [MFI_FRAME_DATA_LEN] = 1,
    };
    g_autofree SGEntry *list = NULL;
    Request req;

    request_to_register(m, &req, reset, SECTOR, 4, "");
    list = sg_entries(m, &req);
    list[0].addr = m->hba_bar.addr + MFI_IDB;
    stl_le_p(&frame[MFI_IO_LBA_LOW], req.start / SECTOR);
    megasas_put_sgl(frame, MFI_IO_SGL, list, 2);
    megasas_post(m, MFI_FRAME(0), frame, sizeof(frame));
    g_assert_cmphex(megasas_wait(m, MFI_FRAME(0)), ==, MFI_STAT_OK);
    expect_transfer(m, &req, req.bytes);
    request_free(&req);
    test_end(m);
}

/*
 * Controllers behind a bridge: what a guest does to them with registers that
 * are not theirs
 */

#define PORT_SLOT               6
#define BUS_1_SLOT(slot)        (32 + (slot))   /* as libqos counts */
#define BRIDGE_WINDOW           MiB
#define MCH_PCIEXBAR            0x60
#define MCH_PCIEXBAREN          1
#define ECAM                    0xb0000000ull
#define ECAM_FUNCTION           (4 * KiB)

#define SLOT_OFF                (PCI_EXP_SLTCTL_PWR_OFF | \
                                 PCI_EXP_SLTCTL_PWR_IND_OFF)

/* PCI Standard Hot-Plug Controller 1.0: the command register, a slot's off */
#define SHPC_COMMAND            0x14
#define SHPC_SLOT_1_OFF         0x010f

/* Without ioeventfd, interrupts come in completions. */
static const Setup behind_root_port = {
    .machine = "-device pcie-root-port,id=bridge,bus=pcie.0,addr=6 "
               "-device virtio-scsi-pci,id=hba,bus=bridge,ioeventfd=off "
               "-device scsi-hd,bus=hba.0,drive=drive0",
    .disks = 1,
    .hba_devfn = QPCI_DEVFN(PORT_SLOT, 0),
    .q35 = true,
};

static const Setup behind_bridge = {
    .machine = "-device pci-bridge,id=bridge,addr=6,chassis_nr=1,shpc=on "
               "-device virtio-scsi-pci,id=hba,bus=bridge,addr=1,"
               "disable-legacy=on "
               "-device scsi-hd,bus=hba.0,drive=drive0",
    .disks = 1,
    .hba_devfn = QPCI_DEVFN(PORT_SLOT, 0),
};

static void enable_ecam(Machine *m)
{
    g_autofree QPCIDevice *mch = qpci_device_find(m->pci, 0);

    qpci_config_writel(mch, MCH_PCIEXBAR, ECAM | MCH_PCIEXBAREN);
}

/* As firmware does it: bus 1, its memory, and ECAM if there is */
static Machine *bridge_begin(const Setup *setup)
{
    Machine *m = test_begin(setup);
    QPCIDevice *bridge = m->hba;
    uint64_t base = ROUND_UP(m->pci->mmio_alloc_ptr, BRIDGE_WINDOW);

    m->pci->mmio_alloc_ptr = base;
    qpci_config_writeb(bridge, PCI_SECONDARY_BUS, 1);
    qpci_config_writeb(bridge, PCI_SUBORDINATE_BUS, 1);
    qpci_config_writew(bridge, PCI_MEMORY_BASE, base >> 16);
    qpci_config_writew(bridge, PCI_MEMORY_LIMIT, base >> 16);
    if (setup->q35) {
        enable_ecam(m);
    }
    return m;
}

static uint64_t config_addr(QPCIDevice *dev, uint32_t reg)
{
    return ECAM + dev->devfn * ECAM_FUNCTION + reg;
}

/* A sector that begins with a word, which goes to a register */
static void read_to_register(Machine *m, VirtioScsi *v, uint16_t word,
                             uint64_t addr)
{
    g_autofree SGEntry *list = NULL;
    uint8_t *sector = m->image[0] + 7 * SECTOR;
    Request req;

    request_init(m, &req, READ, 0, 7 * SECTOR, 0, "h2@0+r510");
    stw_le_p(sector, word);
    g_assert_cmpint(pwrite(m->image_fd[0], sector, SECTOR, req.start), ==,
                    SECTOR);
    list = sg_entries(m, &req);
    list[0].addr = addr;
    virtio_post(m, v, &req, list, 2);
    virtio_expect_good(m, v, &req);
    request_free(&req);
}

/* Configuration space is memory, too */

typedef struct ConfigTest {
    const char *name;
    bool of_bridge;
    bool express;               /* in the PCI Express capability */
    uint8_t reg;
    uint16_t value;
} ConfigTest;

typedef struct ConfigTarget {
    QPCIDevice *dev;
    uint32_t reg;
} ConfigTarget;

static ConfigTarget config_begin(const ConfigTest *t, Machine *m,
                                 VirtioScsi *v, QGuestAllocator *alloc)
{
    ConfigTarget target = { m->hba, t->reg };

    virtio_attach(m, v, BUS_1_SLOT(0), alloc);
    if (!t->of_bridge) {
        target.dev = v->pci->pdev;
    }
    if (t->express) {
        target.reg += qpci_find_capability(target.dev, PCI_CAP_ID_EXP, 0);
    }
    return target;
}

static void test_config(const void *data)
{
    const ConfigTest *t = data;
    Machine *m = bridge_begin(&behind_root_port);
    QGuestAllocator alloc;
    VirtioScsi v;
    ConfigTarget target = config_begin(t, m, &v, &alloc);

    read_to_register(m, &v, t->value, config_addr(target.dev, target.reg));
    g_assert_cmphex(qpci_config_readw(target.dev, target.reg), !=, t->value);
    virtio_read(m, &v);
    virtio_end(m, &v, &alloc);
}

static void test_config_msi(const void *data)
{
    const ConfigTest *t = data;
    Machine *m = bridge_begin(&behind_root_port);
    QGuestAllocator alloc;
    VirtioScsi v;
    ConfigTarget target = config_begin(t, m, &v, &alloc);
    int shift = target.reg % 4 * 8;

    set_vector(v.pci->pdev, config_addr(target.dev, target.reg & ~3u),
               t->value << shift);
    v.pci->msix_ops->set_queue_vector(v.pci, v.requestq, 0);
    virtio_read(m, &v);
    g_assert_cmphex(qpci_config_readw(target.dev, target.reg), !=, t->value);
    qpci_msix_disable(v.pci->pdev);
    virtio_read(m, &v);
    virtio_end(m, &v, &alloc);
}

/* Of virtio devices, it is not the PCI device that receives a packet. */
static void test_packet(void)
{
    g_autofree char *machine = NULL;
    uint16_t packet = cpu_to_le16(SLOT_OFF);
    uint32_t len = cpu_to_be32(sizeof(packet));
    struct iovec iov[] = {
        { .iov_base = &len, .iov_len = sizeof(len) },
        { .iov_base = &packet, .iov_len = sizeof(packet) },
    };
    Setup setup = behind_root_port;
    uint32_t sltctl, head;
    int sv[2];
    uint64_t header;
    Machine *m;
    Virtio v;

    g_assert_cmpint(socketpair(PF_UNIX, SOCK_STREAM, 0, sv), ==, 0);
    machine = g_strdup_printf("-device pcie-root-port,id=bridge,bus=pcie.0,"
                              "addr=6 -netdev socket,fd=%d,id=net0 "
                              "-device virtio-net-pci,bus=bridge,netdev=net0",
                              sv[1]);
    setup.machine = machine;
    setup.disks = 0;
    m = bridge_begin(&setup);
    close(sv[1]);
    virtio_start(m, &v, QPCI_DEVFN(BUS_1_SLOT(0), 0));
    sltctl = qpci_find_capability(m->hba, PCI_CAP_ID_EXP, 0) + PCI_EXP_SLTCTL;
    header = guest_alloc(&v.alloc, sizeof(struct virtio_net_hdr_mrg_rxbuf));
    head = qvirtqueue_add(m->qts, v.vq, header,
                          sizeof(struct virtio_net_hdr_mrg_rxbuf), true, true);
    qvirtqueue_add(m->qts, v.vq, config_addr(m->hba, sltctl), sizeof(packet),
                   true, false);
    qvirtqueue_kick(m->qts, &v.pci->vdev, v.vq, head);
    g_assert_cmpint(iov_send(sv[0], iov, ARRAY_SIZE(iov), 0,
                             sizeof(len) + sizeof(packet)), ==,
                    sizeof(len) + sizeof(packet));
    virtio_wait_used(m, v.vq, head);
    g_assert_cmphex(qpci_config_readw(m->hba, sltctl) & SLOT_OFF, !=, SLOT_OFF);
    virtio_stop(&v);
    close(sv[0]);
    test_end(m);
    machine_discard();
}

/* NVMe */

#define NVME_SLOT               6
#define NVME_QUEUES             2       /* for administration, for requests */
#define NVME_QUEUE_LEN          8
#define NVME_DOORBELLS          0x1000

typedef struct NvmeQueue {
    uint64_t sq, cq;
    uint16_t commands;
} NvmeQueue;

typedef struct Nvme {
    QGuestAllocator alloc;
    NvmeQueue queue[NVME_QUEUES];
} Nvme;

/* NVM Express base specification 1.4, 4.6: the phase of a new entry is 1. */
static void nvme_run(Machine *m, Nvme *n, int qid, NvmeCmd *cmd)
{
    NvmeQueue *q = &n->queue[qid];
    uint64_t entry = q->cq + q->commands * sizeof(NvmeCqe) +
                     offsetof(NvmeCqe, status);
    int64_t deadline = patience_ends();
    uint16_t status;

    cmd->cid = cpu_to_le16(q->commands);
    qtest_memwrite(m->qts, q->sq + q->commands * sizeof(*cmd), cmd,
                   sizeof(*cmd));
    q->commands++;
    g_assert_cmpint(q->commands, <, NVME_QUEUE_LEN);
    hba_writel(m, NVME_DOORBELLS + qid * 8, q->commands);
    while (!((status = qtest_readw(m->qts, entry)) & 1)) {
        wait_before_poll(deadline, "end of command");
    }
    g_assert_cmphex(status >> 1, ==, NVME_SUCCESS);
    hba_writel(m, NVME_DOORBELLS + qid * 8 + 4, q->commands);
}

static void nvme_create(Machine *m, Nvme *n, uint8_t opcode, uint64_t queue,
                        uint32_t flags)
{
    NvmeCmd cmd = {
        .opcode = opcode,
        .dptr.prp1 = cpu_to_le64(queue),
        .cdw10 = cpu_to_le32((NVME_QUEUE_LEN - 1) << 16 | 1),
        .cdw11 = cpu_to_le32(flags),
    };

    nvme_run(m, n, 0, &cmd);
}

static void nvme_start(Machine *m, Nvme *n)
{
    const size_t sq_size = NVME_QUEUE_LEN * sizeof(NvmeCmd);
    const size_t cq_size = NVME_QUEUE_LEN * sizeof(NvmeCqe);
    int i;

    alloc_init(&n->alloc, 0, VIRTIO_MEMORY_BEGIN, VIRTIO_MEMORY_END, 4 * KiB);
    for (i = 0; i < NVME_QUEUES; i++) {
        n->queue[i] = (NvmeQueue) {
            .sq = guest_alloc(&n->alloc, sq_size),
            .cq = guest_alloc(&n->alloc, cq_size),
        };
        qtest_memset(m->qts, n->queue[i].cq, 0, cq_size);
    }
    nvme_enable(m->hba, m->hba_bar, n->queue[0].sq, n->queue[0].cq,
                NVME_QUEUE_LEN);
    nvme_create(m, n, NVME_ADM_CMD_CREATE_CQ, n->queue[1].cq, NVME_CQ_PC);
    nvme_create(m, n, NVME_ADM_CMD_CREATE_SQ, n->queue[1].sq,
                1 << 16 | NVME_SQ_PC);
}

static void nvme_read(Machine *m, Nvme *n, uint64_t sector, uint64_t addr)
{
    NvmeCmd cmd = {
        .opcode = NVME_CMD_READ,
        .nsid = cpu_to_le32(1),
        .dptr.prp1 = cpu_to_le64(addr),
        .cdw10 = cpu_to_le32(sector),
    };

    nvme_run(m, n, 1, &cmd);
}

/* It takes no list with its own registers, but with its configuration. */
static void test_nvme(void)
{
    static const Setup setup = {
        .machine = "-device nvme,id=hba,serial=0,addr=6,drive=drive0",
        .disks = 1,
        .hba_devfn = QPCI_DEVFN(NVME_SLOT, 0),
        .q35 = true,
    };
    const Word reset = { PCI_EXP_DEVCTL_BCR_FLR, PCI_EXP_DEVCTL_BCR_FLR };
    Machine *m = test_begin(&setup);
    uint8_t sector[SECTOR];
    uint32_t at = find(m, reset, SECTOR);
    uint64_t buf;
    Nvme n;

    enable_ecam(m);
    nvme_start(m, &n);
    nvme_read(m, &n, at / SECTOR,
              config_addr(m->hba, qpci_find_capability(m->hba, PCI_CAP_ID_EXP,
                                                       0) + PCI_EXP_DEVCTL));
    buf = guest_alloc(&n.alloc, SECTOR);
    nvme_read(m, &n, at / SECTOR, buf);
    qtest_memread(m->qts, buf, sector, SECTOR);
    g_assert_cmpint(memcmp(sector, m->image[0] + at, SECTOR), ==, 0);
    hba_writel(m, NVME_REG_CC, 0);
    alloc_destroy(&n.alloc);
    test_end(m);
}

static const ConfigTest config_tests[] = {
    { "function-reset", false, true, PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR },
    { "bus-reset", true, false, PCI_BRIDGE_CONTROL, PCI_BRIDGE_CTL_BUS_RESET },
    { "slot-off", true, true, PCI_EXP_SLTCTL, SLOT_OFF },
};

/* The slot is off when the request has ended. */
static void test_shpc(void)
{
    Machine *m = bridge_begin(&behind_bridge);
    QGuestAllocator alloc;
    VirtioScsi v;

    virtio_attach(m, &v, BUS_1_SLOT(1), &alloc);
    read_to_register(m, &v, SHPC_SLOT_1_OFF, m->hba_bar.addr + SHPC_COMMAND);
    qtest_qmp_eventwait(m->qts, "DEVICE_DELETED");
    virtio_scsi_free(&v, &alloc);
    alloc_destroy(&alloc);
    test_end(m);
    machine_discard();
}

static const OwnTest tests[] = {
    { "ahci", "reset", GHC, { GHC_HR, GHC_HR }, 4 },
    { "ahci", "stop", P0CMD, { PXCMD_ST, 0 }, 4 },
    /* More than the host takes in one request */
    { "ahci", "split/reset", GHC, { GHC_HR, GHC_HR }, 4,
      .list = "+1280xr2" },
    { "ahci-cd", "reset", GHC, { GHC_HR, GHC_HR }, 4 },
    { "ahci-cd", "stop", P0CMD, { PXCMD_ST, 0 }, 4 },
    { "lsi", "reset", ISTAT0, { 0xe8, ISTAT0_SRST }, 1 },
    { "lsi", "bus-reset", SCNTL1, { SCNTL1_RST, SCNTL1_RST }, 1 },
    { "lsi", "off/reset", ISTAT0, { 0xe8, ISTAT0_SRST }, 1,
      "-global lsi53c895a.direct-dma=off" },
    { "lsi", "off/bus-reset", SCNTL1, { SCNTL1_RST, SCNTL1_RST }, 1,
      "-global lsi53c895a.direct-dma=off" },
};

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        uint8_t command;
    } commands[] = {
        { "pio", ATA_READ_SECTORS_EXT },
        { "ncq", ATA_READ_FPDMA_QUEUED },
    };
    int i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        const OwnTest *t = &tests[i];
        g_autofree char *path = g_strdup_printf("dma-reentrancy/%s/data/%s",
                                                t->hba, t->name);

        qtest_add_data_func(path, t, test_data);
    }
    for (i = 0; i < ARRAY_SIZE(commands); i++) {
        g_autofree char *path = g_strdup_printf("dma-reentrancy/ahci/%s/reset",
                                                commands[i].name);

        qtest_add_data_func(path, &commands[i].command, test_ahci_command);
    }
    qtest_add_func("dma-reentrancy/ahci/msi/reset", test_ahci_msi);
    qtest_add_func("dma-reentrancy/virtio-scsi/data/reset", test_virtio_scsi);
    for (i = 0; i < ARRAY_SIZE(out_of_reach); i++) {
        const OutOfReach *t = &out_of_reach[i];
        g_autofree char *path = g_strdup_printf("dma-reentrancy/iothread/%s",
                                                t->name);

        qtest_add_data_func(path, t, test_iothread);
    }
    qtest_add_data_func("dma-reentrancy/iothread/drain",
                        GINT_TO_POINTER(false), test_iothread_drain);
    qtest_add_func("dma-reentrancy/iothread/ring", test_iothread_ring);
    qtest_add_data_func("dma-reentrancy/iothread/ring-drain",
                        GINT_TO_POINTER(true), test_iothread_drain);
    qtest_add_func("dma-reentrancy/iothread/msi", test_iothread_msi);
    qtest_add_func("dma-reentrancy/virtio-scsi/answer/reset",
                   test_virtio_scsi_answer);
    qtest_add_func("dma-reentrancy/virtio-blk/data/reset", test_virtio_blk);
    qtest_add_func("dma-reentrancy/megasas/data/reset", test_megasas);
    qtest_add_func("dma-reentrancy/shared-disk/virtio-scsi",
                   test_shared_virtio_scsi);
    qtest_add_func("dma-reentrancy/shared-disk/lsi", test_shared_lsi);
    qtest_add_func("dma-reentrancy/cmb", test_cmb);
    qtest_add_func("dma-reentrancy/pvpanic", test_panic);
    for (i = 0; i < ARRAY_SIZE(config_tests); i++) {
        const ConfigTest *t = &config_tests[i];
        g_autofree char *path = g_strdup_printf("dma-reentrancy/config/%s",
                                                t->name);
        g_autofree char *msi = g_strdup_printf("dma-reentrancy/config/msi/%s",
                                               t->name);

        qtest_add_data_func(path, t, test_config);
        qtest_add_data_func(msi, t, test_config_msi);
    }
    qtest_add_func("dma-reentrancy/config/packet", test_packet);
    qtest_add_func("dma-reentrancy/config/nvme", test_nvme);
    qtest_add_func("dma-reentrancy/shpc/slot-off", test_shpc);
    return test_run();
}
