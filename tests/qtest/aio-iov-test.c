/*
 * Scatter/gather lists that the host's direct I/O would refuse
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Commands with more entries than IOV_MAX (AHCI), and with entries at odd
 * addresses or of odd lengths (bus master IDE), on an image that is opened with
 * O_DIRECT, for every kind of host AIO, and on others.  Guest memory is a file
 * that the test maps as well: after a command all of it is compared, and all of
 * the image.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "libqtest.h"
#include "libqos/ahci.h"
#include "libqos/libqos-pc.h"
#include "libqos/pci-pc.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include <sys/mman.h>
#ifdef CONFIG_LINUX_IO_URING
#include <sys/syscall.h>
#endif

#define SECTOR          512
#define IMAGE_SIZE      (40 * MiB)

/* Guest memory: libqos allocates from the beginning, tests use the rest. */
#define RAM_SIZE        (224 * MiB)
#define TABLE_BASE      (32 * MiB)
#define DATA_BASE       (64 * MiB)
#define DATA_SIZE       (RAM_SIZE - DATA_BASE)

/* No command takes a tenth of this, even on a machine that is overloaded. */
#define PATIENCE        (60 * G_USEC_PER_SEC)

typedef struct Entry {
    uint32_t addr;
    uint32_t len;
} Entry;

typedef struct List {
    Entry *entry;
    int n;
    size_t size;
} List;

static uint8_t *ram;            /* all of guest memory */
static uint8_t *want_data;      /* what shall be at DATA_BASE */
static uint8_t *want_image;
static char *image_path;
static char *ram_path;

static void list_add(List *list, uint32_t addr, uint32_t len)
{
    g_assert_cmpuint(addr, >=, DATA_BASE);
    g_assert_cmpuint(addr + len, <=, RAM_SIZE);
    list->entry = g_renew(Entry, list->entry, list->n + 1);
    list->entry[list->n++] = (Entry) { addr, len };
    list->size += len;
}

static void list_clear(List *list)
{
    g_free(list->entry);
    *list = (List) { 0 };
}

/* Something that differs from sector to sector, and from @seed to @seed */
static void fill(uint8_t *buf, size_t len, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;

    for (size_t i = 0; i + 4 <= len; i += 4) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        memcpy(buf + i, &x, 4);
    }
}

/* What the transfer does to @want_data or @want_image */
static void expect_transfer(const List *list, unsigned int lba, bool is_write)
{
    uint8_t *p = want_image + (size_t)lba * SECTOR;

    for (int i = 0; i < list->n; i++) {
        uint8_t *data = want_data + list->entry[i].addr - DATA_BASE;

        if (is_write) {
            memcpy(p, data, list->entry[i].len);
        } else {
            memcpy(data, p, list->entry[i].len);
        }
        p += list->entry[i].len;
    }
}

static void assert_same(const char *what, const uint8_t *got,
                        const uint8_t *want, size_t len)
{
    if (memcmp(got, want, len)) {
        size_t i = 0;

        while (got[i] == want[i]) {
            i++;
        }
        g_test_message("%s differs first at 0x%zx: 0x%02x, not 0x%02x", what,
                       i, got[i], want[i]);
        g_assert_not_reached();
    }
}

static void assert_everything(void)
{
    g_autofree uint8_t *got = g_malloc(IMAGE_SIZE);
    int fd = open(image_path, O_RDONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(read(fd, got, IMAGE_SIZE), ==, IMAGE_SIZE);
    close(fd);
    assert_same("the image", got, want_image, IMAGE_SIZE);
    assert_same("memory", ram + DATA_BASE, want_data, DATA_SIZE);
}

/* New contents for memory and for the image */
static void set_up(uint32_t seed)
{
    int fd = open(image_path, O_WRONLY);

    fill(want_data, DATA_SIZE, seed);
    memcpy(ram + DATA_BASE, want_data, DATA_SIZE);
    fill(want_image, IMAGE_SIZE, seed + 1);
    g_assert_cmpint(write(fd, want_image, IMAGE_SIZE), ==, IMAGE_SIZE);
    g_assert_cmpint(fsync(fd), ==, 0);
    close(fd);
}

/* AHCI */

/* AHCI 1.3.1, 4.2.3: the table has the PRDs at 0x80, 16 bytes each. */
#define AHCI_PRDT       0x80
#define AHCI_PRD_SIZE   16

static void ahci_rw(AHCIQState *ahci, uint8_t port, const List *list,
                    unsigned int lba, bool is_write)
{
    AHCICommand *cmd = ahci_command_create(is_write ? CMD_WRITE_DMA_EXT
                                                    : CMD_READ_DMA_EXT);
    uint8_t *prd = ram + TABLE_BASE + AHCI_PRDT;
    AHCICommandHeader header, saved;

    expect_transfer(list, lba, is_write);
    ahci_command_adjust(cmd, lba, DATA_BASE, list->size, 4 * MiB);
    ahci_command_commit(ahci, cmd, port);

    /* libqos only knows buffers in one piece: give it our table. */
    ahci_get_command_header(ahci, port, ahci_command_slot(cmd), &header);
    saved = header;
    memcpy(ram + TABLE_BASE, ram + header.ctba, AHCI_PRDT);
    for (int i = 0; i < list->n; i++, prd += AHCI_PRD_SIZE) {
        stq_le_p(prd, list->entry[i].addr);
        stl_le_p(prd + 8, 0);
        stl_le_p(prd + 12, list->entry[i].len - 1);
    }
    header.ctba = TABLE_BASE;
    header.prdtl = list->n;
    ahci_set_command_header(ahci, port, ahci_command_slot(cmd), &header);

    ahci_command_issue(ahci, cmd);
    ahci_command_verify(ahci, cmd);
    ahci_set_command_header(ahci, port, ahci_command_slot(cmd), &saved);
    ahci_command_free(cmd);
    assert_everything();
}

static const struct {
    const char *name;
    int n;
    uint32_t len;
    uint32_t offset;            /* of the address, in a block */
} ahci_cases[] = {
    { "1024", 1024, SECTOR, 0 },
    { "1025", 1025, SECTOR, 0 },
    { "2048", 2048, SECTOR, 0 },
    { "2048-odd-address", 2048, SECTOR, 2 },
    { "2048-odd-length", 2048, 256, 0 },
    { "65535", 65535, SECTOR, 0 },
    { "65535-odd-length", 65535, 128, 6 },
};

static void test_ahci(const void *drive)
{
    AHCIQState ahci = { 0 };
    uint8_t port;

    ahci.parent = qtest_pc_boot(
        "-M q35,memory-backend=ram0 -m %d "
        "-object memory-backend-file,id=ram0,size=%dM,mem-path=%s,share=on "
        "-drive if=none,id=drive0,format=raw,%s "
        "-device ide-hd,drive=drive0",
        (int)(RAM_SIZE / MiB), (int)(RAM_SIZE / MiB), ram_path,
        (const char *)drive);
    ahci.dev = get_ahci_device(ahci.parent->qts, &ahci.fingerprint);
    ahci_pci_enable(&ahci);
    ahci_hba_enable(&ahci);
    port = ahci_port_select(&ahci);
    ahci_port_clear(&ahci, port);

    for (int i = 0; i < ARRAY_SIZE(ahci_cases); i++) {
        uint32_t len = ahci_cases[i].len;
        List list = { 0 };

        g_test_message("%s PRDs", ahci_cases[i].name);
        for (int j = 0; j < ahci_cases[i].n; j++) {
            bool last = j == ahci_cases[i].n - 1;
            size_t rest = (list.size + len) % SECTOR;

            list_add(&list, DATA_BASE + ahci_cases[i].offset + j * 1024,
                     last && rest ? len + SECTOR - rest : len);
        }
        for (int is_write = 0; is_write < 2; is_write++) {
            set_up(i * 4 + is_write * 2);
            ahci_rw(&ahci, port, &list, 100, is_write);
        }
        list_clear(&list);
    }

    ahci_clean_mem(&ahci);
    free_ahci_device(ahci.dev);
    qtest_shutdown(ahci.parent);
}

/* Bus master IDE */

/* PIIX3 (82371SB) datasheet: function 1; 2.7: bus master registers */
#define PIIX3_IDE_DEVFN QPCI_DEVFN(1, 1)
#define PIIX3_IDE_BMIBA 4
#define BMIC            0x0
#define   BMIC_START    0x01
#define   BMIC_TO_MEM   0x08
#define BMIS            0x2
#define   BMIS_ERROR    0x02
#define   BMIS_INTR     0x04
#define BMIDTP          0x4
#define PRD_EOT         0x80000000

/* ATA: the command block of the primary channel */
#define ATA_COUNT       0x1f2
#define ATA_LBA_LOW     0x1f3
#define ATA_LBA_MID     0x1f4
#define ATA_LBA_HIGH    0x1f5
#define ATA_DEVICE      0x1f6
#define   ATA_LBA       0xe0
#define ATA_COMMAND     0x1f7
#define   READ_DMA      0xc8
#define   WRITE_DMA     0xca
#define ATA_STATUS      0x1f7
#define   ATA_BSY       0x80
#define   ATA_DRQ       0x08
#define   ATA_ERR       0x01

typedef struct Bmdma {
    QTestState *qts;
    QPCIDevice *dev;
    QPCIBar bar;
} Bmdma;

static void bmdma_rw(Bmdma *b, const List *list, unsigned int lba,
                     bool is_write)
{
    int64_t end = g_get_monotonic_time() + PATIENCE;
    uint8_t to_mem = is_write ? 0 : BMIC_TO_MEM;

    g_assert_cmpint(list->n, <=, 4096 / 8);
    g_assert_cmpuint(list->size % SECTOR, ==, 0);
    g_assert_cmpuint(list->size, <=, 256 * SECTOR);
    expect_transfer(list, lba, is_write);
    for (int i = 0; i < list->n; i++) {
        uint32_t eot = i == list->n - 1 ? PRD_EOT : 0;

        stl_le_p(ram + TABLE_BASE + i * 8, list->entry[i].addr);
        stl_le_p(ram + TABLE_BASE + i * 8 + 4, list->entry[i].len | eot);
    }
    qpci_io_writel(b->dev, b->bar, BMIDTP, TABLE_BASE);
    qpci_io_writeb(b->dev, b->bar, BMIS, BMIS_ERROR | BMIS_INTR);

    qtest_outb(b->qts, ATA_DEVICE, ATA_LBA | lba >> 24);
    qtest_outb(b->qts, ATA_COUNT, list->size / SECTOR);
    qtest_outb(b->qts, ATA_LBA_LOW, lba);
    qtest_outb(b->qts, ATA_LBA_MID, lba >> 8);
    qtest_outb(b->qts, ATA_LBA_HIGH, lba >> 16);
    qtest_outb(b->qts, ATA_COMMAND, is_write ? WRITE_DMA : READ_DMA);
    qpci_io_writeb(b->dev, b->bar, BMIC, to_mem | BMIC_START);

    while (!(qpci_io_readb(b->dev, b->bar, BMIS) & BMIS_INTR)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(50);
    }
    qpci_io_writeb(b->dev, b->bar, BMIC, to_mem);
    g_assert_cmphex(qpci_io_readb(b->dev, b->bar, BMIS) & BMIS_ERROR, ==, 0);
    g_assert_cmphex(qtest_inb(b->qts, ATA_STATUS) &
                    (ATA_BSY | ATA_DRQ | ATA_ERR), ==, 0);
    assert_everything();
}

/* 32 pages, of which one pair meets in the middle of a block */
static void make_pair(List *list)
{
    for (int i = 0; i < 32; i++) {
        uint32_t addr = DATA_BASE + i * 16384;

        if (i == 10) {
            list_add(list, addr, 4096 - 256);
        } else if (i == 11) {
            list_add(list, addr + 256, 4096 + 256);
        } else {
            list_add(list, addr, 4096);
        }
    }
}

/* As one big buffer at an odd address is, in pages that lie anywhere */
static void make_unaligned_buffer(List *list)
{
    list_add(list, DATA_BASE + 34, 4096 - 34);
    for (int i = 1; i < 16; i++) {
        list_add(list, DATA_BASE + i * 12288, 4096);
    }
    list_add(list, DATA_BASE + 16 * 12288, 34);
}

static void make_odd_lengths(List *list)
{
    for (int i = 0; i < 128; i++) {
        list_add(list, DATA_BASE + i * 8192, 510);
        list_add(list, DATA_BASE + i * 8192 + 4096, 514);
    }
}

static void make_odd_addresses(List *list)
{
    for (int i = 0; i < 256; i++) {
        list_add(list, DATA_BASE + i * 2048 + 2 + i * 2 % 64, SECTOR);
    }
}

static void make_tiny(List *list)
{
    for (int i = 0; i < 500; i++) {
        list_add(list, DATA_BASE + i * 64, 2);
    }
    list_add(list, DATA_BASE + 64 * KiB, 24);
}

static void make_random(List *list)
{
    uint32_t addr = DATA_BASE;

    while (list->n < 400 && list->size < 120 * KiB) {
        uint32_t len = 2 * g_test_rand_int_range(1, 2500);

        if (g_test_rand_int_range(0, 3)) {
            addr = QEMU_ALIGN_UP(addr, 512);
            len = QEMU_ALIGN_UP(len, 512);
        }
        list_add(list, addr, len);
        addr += len + 2 * g_test_rand_int_range(0, 2000);
    }
    list_add(list, addr, SECTOR - list->size % SECTOR);
}

/* The length that O_DIRECT wants elements to be a multiple of, or 0 for any */
static int direct_len_align;

/* What the block layer made of the first list, which was read and written */
static void check_pair_counters(QTestState *qts, bool direct)
{
    QDict *stats = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'x-query-dma' }");
    QDict *vectors = qdict_get_qdict(stats, "vectors");
    int bounced = direct ? direct_len_align : 0;

    g_assert_cmpint(qdict_get_int(vectors, "requests-bounced"), ==,
                    bounced ? 2 : 0);
    g_assert_cmpint(qdict_get_int(vectors, "requests-untouched"), ==,
                    bounced ? 0 : 2);
    g_assert_cmpint(qdict_get_int(vectors, "requests-split"), ==, 0);
    g_assert_cmpint(qdict_get_int(vectors, "bytes-bounced"), ==, 2 * bounced);
    g_assert_cmpint(qdict_get_int(vectors, "bytes-direct"), ==,
                    2 * (128 * KiB - bounced));
    if (bounced) {
        QDict *row = qobject_to(QDict, qlist_peek(qdict_get_qlist(vectors,
                                                                  "bounced")));

        g_assert_cmpstr(qdict_get_str(row, "reason"), ==, "alignment");
        g_assert_cmpint(qdict_get_int(row, "bytes"), ==, 2 * bounced);
    }
    qobject_unref(stats);
}

static void (*const bmdma_lists[])(List *list) = {
    make_pair, make_unaligned_buffer, make_odd_lengths, make_odd_addresses,
    make_tiny, make_random, make_random, make_random, make_random,
};

static void test_bmdma(const void *drive)
{
    Bmdma b;
    QPCIBus *bus;

    b.qts = qtest_initf(
        "-M pc,memory-backend=ram0 -m %d "
        "-object memory-backend-file,id=ram0,size=%dM,mem-path=%s,share=on "
        "-drive if=none,id=drive0,format=raw,%s "
        "-device ide-hd,bus=ide.0,drive=drive0",
        (int)(RAM_SIZE / MiB), (int)(RAM_SIZE / MiB), ram_path,
        (const char *)drive);
    qtest_qmp_assert_success(b.qts, "{ 'execute': 'x-reset-dma' }");
    bus = qpci_new_pc(b.qts, NULL);
    b.dev = qpci_device_find(bus, PIIX3_IDE_DEVFN);
    g_assert(b.dev);
    qpci_device_enable(b.dev);
    b.bar = qpci_iomap(b.dev, PIIX3_IDE_BMIBA, NULL);

    for (int i = 0; i < ARRAY_SIZE(bmdma_lists); i++) {
        List list = { 0 };

        g_test_message("list %d", i);
        bmdma_lists[i](&list);
        for (int is_write = 0; is_write < 2; is_write++) {
            set_up(i * 4 + is_write * 2 + 1000);
            bmdma_rw(&b, &list, 77, is_write);
        }
        /* Larger blocks than 512 bytes are not at multiples of 77 sectors. */
        if (i == 0 && direct_len_align == SECTOR) {
            check_pair_counters(b.qts, strstr(drive, "cache=none"));
        }
        list_clear(&list);
    }

    qpci_iounmap(b.dev, b.bar);
    g_free(b.dev);
    qpci_free_pc(bus);
    qtest_quit(b.qts);
}

/* Where this runs */

/* Why O_DIRECT on this file is not what these tests are about, or NULL */
static const char *direct_io_problem(void)
{
#ifdef O_DIRECT
    uint8_t *buf = qemu_memalign(4096, 8192);
    struct iovec iov[2] = { { buf, 256 }, { buf + 4096, 256 } };
    int fd = open(image_path, O_RDWR | O_DIRECT);
    const char *problem = NULL;

    /* Not in a hole, where nothing is enforced since there is no I/O */
    if (fd < 0 || pwrite(fd, memset(buf, 0, 8192), 8192, 0) != 8192) {
        problem = "O_DIRECT is not possible here";
    } else if (preadv(fd, iov, 2, 0) >= 0) {
        problem = "O_DIRECT does not want any alignment here";
    } else {
        iov[0].iov_len = iov[1].iov_len = SECTOR;
        direct_len_align = preadv(fd, iov, 2, 0) == 2 * SECTOR ? SECTOR : 4096;
    }
    if (fd >= 0) {
        close(fd);
    }
    qemu_vfree(buf);
    return problem;
#else
    return "there is no O_DIRECT on this host";
#endif
}

static bool have_io_uring(void)
{
#ifdef CONFIG_LINUX_IO_URING
    /* There is no ring with no entries; but can there be any? */
    return syscall(__NR_io_uring_setup, 0, NULL) < 0 && errno != ENOSYS &&
           errno != EPERM;
#else
    return false;
#endif
}

static void test_skip(const void *reason)
{
    g_test_skip(reason);
}

/* Test with this -drive, or give the reason why not. */
G_GNUC_PRINTF(3, 4)
static void add_tests(const char *name, const char *problem,
                      const char *drive_fmt, ...)
{
    g_autofree char *ahci = g_strdup_printf("/aio-iov/ahci/%s", name);
    g_autofree char *bmdma = g_strdup_printf("/aio-iov/bmdma/%s", name);
    va_list ap;
    char *data;

    va_start(ap, drive_fmt);
    data = problem ? g_strdup(problem) : g_strdup_vprintf(drive_fmt, ap);
    va_end(ap);

    /* Each frees its own. */
    if (qtest_has_machine("q35")) {
        qtest_add_data_func_full(ahci, g_strdup(data),
                                 problem ? test_skip : test_ahci, g_free);
    }
    if (qtest_has_machine("pc")) {
        qtest_add_data_func_full(bmdma, g_strdup(data),
                                 problem ? test_skip : test_bmdma, g_free);
    }
    g_free(data);
}

/* A new file of @size in @dir, which may be removed when it is open */
static char *make_file(const char *dir, const char *name, off_t size)
{
    char *path = g_build_filename(dir, name, NULL);
    int fd = g_mkstemp(path);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    close(fd);
    return path;
}

int main(int argc, char **argv)
{
    static const char direct[] = "file=%s,cache=none,aio=%s";
    const char *problem;
    int fd, ret;

    g_test_init(&argc, &argv, NULL);

    /* Temporary directories are often in memory; the build is on a disk. */
    image_path = make_file(".", "aio-iov-image-XXXXXX", IMAGE_SIZE);
    problem = direct_io_problem();
    if (problem) {
        unlink(image_path);
        g_free(image_path);
        image_path = make_file(g_get_tmp_dir(), "aio-iov-image-XXXXXX",
                               IMAGE_SIZE);
        problem = direct_io_problem();
    }

    ram_path = make_file(g_get_tmp_dir(), "aio-iov-ram-XXXXXX", RAM_SIZE);
    fd = open(ram_path, O_RDWR);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert(ram != MAP_FAILED);
    close(fd);
    want_data = g_malloc(DATA_SIZE);
    want_image = g_malloc(IMAGE_SIZE);

    add_tests("buffered", NULL, "file=%s,cache=writeback", image_path);
    /* Blocks that are larger than the guest's, so that requests are padded */
    add_tests("4k-blocks", NULL, "file.driver=blkdebug,file.align=4096,"
              "file.image.driver=file,file.image.filename=%s", image_path);

    add_tests("threads", problem, direct, image_path, "threads");
#ifdef CONFIG_LINUX_AIO
    add_tests("native", problem, direct, image_path, "native");
#else
    add_tests("native", problem ?: "QEMU was built without Linux AIO", direct,
              image_path, "native");
#endif
    if (!problem && !have_io_uring()) {
        problem = "there is no io_uring here";
    }
    add_tests("io_uring", problem, direct, image_path, "io_uring");

    ret = g_test_run();

    unlink(image_path);
    unlink(ram_path);
    return ret;
}
